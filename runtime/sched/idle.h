// Idle: who sleeps, who is woken, and who watches; the whole protocol, both sides, in this one file.
//
//   idle.rung(preferred);                        // a waker that made work worth another worker
//   idle.watched();                              // a waker that made work and rang nobody
//   while (idle.find_work(*this, index)) run();  // a worker; false: the runtime stops
//
// A sleeper announces itself and then looks everywhere again; a waker publishes and then looks for
// sleepers. Each side's first step is a sequentially consistent read-modify-write and its second a
// sequentially consistent load, so at least one of them sees the other. Acquire and release would let
// both miss: store-load reordering, the one reordering that x86 does. [sleep]
//
// Waking another CPU costs some 30 us, so not every piece of work rings: the watcher, one sleeping worker
// that looks at the busy ones every kWatchPeriodNs, starts what was left. There is a watcher whenever
// somebody is busy while somebody sleeps and work was made quietly, or timers are armed; there is none,
// and no timed sleep at all, when nobody is busy. The searcher's right (at most half as many searchers
// as busy workers) and the watcher's are tokens, each given back *before* the last look.
//
// Host, the worker as this file sees it:
//   bool stopping()             the runtime stops
//   bool collect()              takes what is for it without searching: inbox, a share of the injection
//                               queue, due timers, completions; true when it now has something to run
//   bool steal(int victim)      takes a share of another worker's queues
//   bool share_left()           the injection queue or its own queues hold work worth another worker
//   bool quiet_work()           its own queues hold work
//   bool anything()             seq_cst loads: any queue of anybody, own inbox, injection queue, timers
//   bool has_timers()           armed timers that a busy worker might neglect
//   bool spin()                 waits actively for a moment; true when something came
//   void sleep(bool timed)      submits what is prepared; ends by a doorbell, a completion, the earliest
//                               timer or, when timed, after kWatchPeriodNs
//   bool rescue()               the watcher's look: takes work that has not moved, due timers included
//   void ring(int worker)       writes to that worker's doorbell
//
// Requires: work is published with a seq_cst read-modify-write before rung() is called; no object lock is
// held then. Before watched() any store will do: its caller counted itself as busy by such an operation, so
// a sleeper that missed the work either saw somebody busy, and watches, or is seen asleep by the caller.
// Promises: no runnable fiber is left while every worker sleeps; none waits for ever behind a worker that
// runs for ever, if a second worker exists; stop() is seen by everybody; an idle process has no wake-ups.
// Checked in tests/model over this very source.
#pragma once

#include <cstdint>
#include <memory>

#include "runtime/base/atomic.h"
#include "runtime/base/plant.h"

namespace weft::sched {

class Idle {
 public:
  static constexpr std::int64_t kWatchPeriodNs = 10'000'000;

  explicit Idle(int workers)
      : workers_(workers), slots_(new Slot[static_cast<unsigned>(workers)]) {}

  // ---- Wakers

  // Wakes one sleeper, `preferred` if it sleeps, to share the work just published. Returns whether one
  // was there. `host` is any host: it only rings.
  // Call from: any thread. Never parks.
  template <class Host>
  bool rung(Host& host, int preferred = 0) {
    return claim_sleeper(host, kRung, preferred);
  }

  // Makes sure that somebody will look at the work just published, now or within a period.
  // Call from: a worker. Never parks.
  template <class Host>
  void watched(Host& host) {
    // Load before CAS: nearly always there is a watcher already, or nobody to become one. What decides is
    // the words: a count alone could stay wrong for as long as somebody who changes it is preempted.
    while (sleepers_.load(std::memory_order_seq_cst) != 0 &&  // [sleep] the waker's second step
           watcher_.load(std::memory_order_seq_cst) == 0 &&
           (somebody_sleeps() || base::planted(26))) {
      std::uint32_t nobody = 0;
      // seq_cst: the token before the sleeper, in one order with those who give it back. [watch]
      if (!watcher_.compare_exchange_strong(nobody, 1, std::memory_order_seq_cst)) return;
      if (claim_sleeper(host, kRungAsWatcher, 0)) return;
      give_back_watch();  // nobody to ring: give it back, then look again, or both could miss
    }
  }

  // Makes sure that `worker` looks at its inbox soon: rings it if it sleeps; awake, it looks once a
  // turn. Call from: any thread, after the message was published. Never parks.
  template <class Host>
  void reach(Host& host, int worker) {
    std::uint32_t asleep = kAsleep;
    // [sleep] the second step
    if (slots_[worker].word.load(std::memory_order_seq_cst) == kAsleep &&
        slots_[worker].word.compare_exchange_strong(asleep, kRung, std::memory_order_seq_cst)) {
      sleepers_.fetch_sub(1, std::memory_order_seq_cst);
      host.ring(worker);
    }
  }

  // Wakes all sleepers, to see that the runtime stops; who is awake looks before it sleeps. Call from: any thread, after the flag is set.
  template <class Host>
  void ring_all(Host& host) {
    for (int i = 0; i < workers_; ++i) {
      std::uint32_t asleep = kAsleep;
      if (slots_[i].word.compare_exchange_strong(asleep, kRung, std::memory_order_seq_cst)) {
        sleepers_.fetch_sub(1, std::memory_order_seq_cst);
        host.ring(i);
      }
    }
  }

  // ---- A worker that has nothing left to run

  // Returns true when the host has something to run again, false when the runtime stops.
  // Call from: the worker `self`. Parks nothing; may sleep in the host.
  template <class Host>
  bool find_work(Host& host, int self) {
    busy_.fetch_sub(1, std::memory_order_seq_cst);
    bool invited = false;  // a ringer's promise of work: search without asking for the right
    while (true) {
      if (host.stopping()) {
        if (slots_[self].watches) stop_watching(self);
        return false;
      }
      if (host.collect() || search(host, self, invited)) {
        begin_running(host, self);
        if (host.share_left()) rung(host);  // moving work is making it
        return true;
      }
      invited = false;
      if (slots_[self].watches && busy_.load(std::memory_order_seq_cst) == 0) {
        stop_watching(self);
        watch_if_needed(self);  // [watch] somebody may have become busy, and seen a watcher
      }
      if (!slots_[self].watches && host.spin()) continue;
      invited = sleep(host, self);
      if (slots_[self].watches && busy_.load(std::memory_order_seq_cst) != 0 && host.rescue()) {
        begin_running(host, self);
        return true;
      }
    }
  }

  // The first call of every worker comes from here: it counts as running.
  void enter() { busy_.fetch_add(1, std::memory_order_seq_cst); }

  // ---- For metrics and tests
  unsigned sleepers() const { return sleepers_.load(std::memory_order_seq_cst); }
  unsigned busy() const { return busy_.load(std::memory_order_seq_cst); }
  bool has_watcher() const { return watcher_.load(std::memory_order_seq_cst) != 0; }

 private:
  enum Word : std::uint32_t { kAwake, kAsleep, kRung, kRungAsWatcher };

  struct alignas(64) Slot {
    // [sleep] Set to kAsleep by its worker alone; whoever changes it from there took one sleeper off.
    base::Atomic<std::uint32_t> word{kAwake};
    bool watches = false;  // the worker's own: it holds the watcher's token
  };

  // Claims before it rings, so that a sleeper is rung once and work is not counted on twice.
  template <class Host>
  bool claim_sleeper(Host& host, Word role, int preferred) {
    if (sleepers_.load(std::memory_order_seq_cst) == 0) return false;  // [sleep] the second step
    for (int i = 0; i < workers_; ++i) {
      const int worker = (preferred + i) % workers_;
      std::uint32_t seen = slots_[worker].word.load(std::memory_order_seq_cst);
      if constexpr (base::planted(25)) {
        if (seen != kAsleep) continue;
        slots_[worker].word.store(role, std::memory_order_seq_cst);
        sleepers_.fetch_sub(1, std::memory_order_seq_cst);
        host.ring(worker);
        return true;
      }
      // seq_cst [sleep]: in one order with the announcements.
      if (seen == kAsleep &&
          slots_[worker].word.compare_exchange_strong(seen, role, std::memory_order_seq_cst)) {
        sleepers_.fetch_sub(1, std::memory_order_seq_cst);
        host.ring(worker);
        if constexpr (base::planted(47)) continue;
        return true;
      }
    }
    return false;
  }

  bool somebody_sleeps() const {
    for (int i = 0; i < workers_; ++i) {
      if (slots_[i].word.load(std::memory_order_seq_cst) == kAsleep) return true;
    }
    return false;
  }

  template <class Host>
  bool search(Host& host, int self, bool invited) {
    if (!invited) {
      // relaxed: the CAS checks it
      std::uint32_t seen = searchers_.load(std::memory_order_relaxed);
      do {
        if (2 * seen >= busy_.load(std::memory_order_seq_cst)) return false;
      } while (!searchers_.compare_exchange_weak(seen, seen + 1, std::memory_order_seq_cst));
    }
    bool found = false;
    for (int i = 1; i < workers_ && !found; ++i) found = host.steal((self + i) % workers_);
    // seq_cst: given back before the last look in sleep(), or a waker could count on a searcher that
    // will not look any more.
    if (!invited) searchers_.fetch_sub(1, std::memory_order_seq_cst);
    return found;
  }

  // Announces, looks again, sleeps. Returns whether the worker may search without asking.
  template <class Host>
  bool sleep(Host& host, int self) {
    Slot& slot = slots_[self];
    // Counted first, so that whoever takes a sleeper off the words never takes the count below zero.
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    slot.word.exchange(kAsleep, std::memory_order_seq_cst);  // [sleep] the sleeper's first step
    // [sleep] the sleeper's second step
    const bool look_again =
        (host.stopping() && !base::planted(22)) || (host.anything() && !base::planted(21));
    if (!look_again) {
      watch_if_needed(self);
      host.sleep(slot.watches);
    }
    const std::uint32_t was = slot.word.exchange(kAwake, std::memory_order_seq_cst);
    if (was == kAsleep) sleepers_.fetch_sub(1, std::memory_order_seq_cst);
    if (was == kRungAsWatcher) slot.watches = true;
    return look_again || was == kRung;
  }

  // Becomes the watcher if somebody is busy and nobody watches.
  void watch_if_needed(int self) {
    std::uint32_t nobody = 0;
    if (!base::planted(23) && workers_ > 1 && busy_.load(std::memory_order_seq_cst) != 0 &&
        watcher_.compare_exchange_strong(nobody, 1, std::memory_order_seq_cst)) {
      slots_[self].watches = true;
    }
  }

  // The one place where a worker goes from idle to running.
  template <class Host>
  void begin_running(Host& host, int self) {
    busy_.fetch_add(1, std::memory_order_seq_cst);
    const bool watched_until_now = slots_[self].watches;
    if (watched_until_now) stop_watching(self);
    if (watched_until_now && base::planted(24)) return;
    if (watched_until_now || host.has_timers() || host.quiet_work()) watched(host);
  }

  void stop_watching(int self) {
    slots_[self].watches = false;
    give_back_watch();
  }
  // [watch] then look again
  void give_back_watch() { watcher_.exchange(0, std::memory_order_seq_cst); }

  const int workers_;
  std::unique_ptr<Slot[]> slots_;
  alignas(64) base::Atomic<std::uint32_t> sleepers_{0};
  base::Atomic<std::uint32_t> watcher_{0};  // 1: the token is taken
  alignas(64) base::Atomic<std::uint32_t> busy_{0};
  base::Atomic<std::uint32_t> searchers_{0};
};

}  // namespace weft::sched
