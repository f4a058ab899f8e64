// Sleeping, ringing and watching: Idle as it ships, over workers whose queues are counters. At rest no
// work is left while a worker sleeps, nor behind one that runs for ever, nor a timer that is due; an idle
// process has no timed sleeper; and whoever stops the runtime is heard by everybody.
#include "runtime/sched/idle.h"

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include <catch2/catch.hpp>

#include "runtime/base/plant.h"
#include "tests/model/blocking.h"
#include "tests/model/explore.h"

namespace weft::model {
namespace {

using Count = base::Atomic<int>;

constexpr auto kSeqCst = std::memory_order_seq_cst;
constexpr auto kRelaxed = std::memory_order_relaxed;

// Takes `wanted(n)` of the n that are there, and returns how many.
template <class Wanted>
int take(Count& count, Wanted wanted) {
  int seen = count.load(kRelaxed);
  while (seen > 0 && !count.compare_exchange_strong(seen, seen - wanted(seen), kSeqCst)) {
  }
  return seen > 0 ? wanted(seen) : 0;
}
int take_one(Count& count) {
  return take(count, [](int) { return 1; });
}
int take_half(Count& count) {
  return take(count, [](int n) { return (n + 1) / 2; });
}
int take_all(Count& count) {
  return take(count, [](int n) { return n; });
}

struct Limits {
  const char* name;
  int workers;
  int stuck_max;    // how many fibers may run for ever
  bool early_stop;  // the runtime is stopped at any time, not at rest
  // What threads outside do: i inject a fiber, 0 or 1 send one to that worker, n a note that is no fiber
  // to worker 1.
  std::array<std::string_view, 2> producers;
  // What fibers do, in the order in which they run: s spawn, w wake one, t arm a timer, . end, ! run for
  // ever; ? is any of them. Then they end.
  std::string_view script;
};

class Runtime;

// What Worker is to Idle.
class ModelWorker {
 public:
  void start(Runtime& runtime, int index);
  void main();

  // ---- The host of Idle
  bool stopping() const;
  bool collect();
  bool steal(int victim);
  bool share_left() const;
  bool quiet_work() const { return !queues_empty(); }
  bool anything() const;
  bool has_timers() const { return timers_.load(kRelaxed) != 0 || due_.load(kRelaxed) != 0; }
  bool spin() { return false; }
  void sleep(bool timed);
  bool rescue();
  void ring(int worker);

  // ---- For the others
  Count inbox{0};  // fibers that must run here
  Count notes{0};  // messages about fibers

  bool queues_empty() const {
    return next_slot_.load(kRelaxed) == 0 && ready_.load(kRelaxed) == 0 &&
           unstarted_.load(kRelaxed) == 0;
  }
  bool stranded() const { return !queues_empty() || due_.load(kRelaxed) != 0; }
  // What is asleep and how, for the check at rest.
  bool asleep() const { return asleep_; }
  bool timed() const { return asleep_ && timed_; }
  bool stuck() const { return stuck_; }
  // Call from: the clock.
  bool armed() const { return timers_.load(kRelaxed) != 0; }
  void pass_time() {
    if (!armed()) return;
    due_.fetch_add(1, kSeqCst);
    timers_.fetch_sub(1, kSeqCst);
  }

 private:
  static constexpr int kReadyWorthARing = 3;
  static constexpr int kFibersPerTurn = 1;

  bool take_local();
  void run();
  void take_in();
  void make_ready();
  void spawn();
  void arm();

  Runtime* runtime_ = nullptr;
  int index_ = 0;
  bool asleep_ = false;
  bool timed_ = false;
  bool stuck_ = false;
  Count next_slot_{0};
  Count ready_{0};
  Count unstarted_{0};
  Count timers_{0};  // armed, and not due
  Count due_{0};
  Count doorbell_{0};
};

class Runtime {
 public:
  Runtime(Schedule& schedule, const Limits& limits);

  sched::Idle& idle() { return idle_; }
  ModelWorker& worker(int index) { return workers_[static_cast<std::size_t>(index)]; }
  int worker_count() const { return limits_.workers; }
  const Limits& limits() const { return limits_; }
  char next_action() { return acted_ < limits_.script.size() ? limits_.script[acted_++] : '.'; }

  Count injection{0};
  base::Atomic<bool> stopping{false};
  int stuck = 0;
  int stopped = 0;

 private:
  void produce(std::string_view actions);
  void pass_time();
  void look_at_rest();
  void stop();

  const Limits limits_;
  std::size_t acted_ = 0;
  sched::Idle idle_;
  std::array<ModelWorker, 3> workers_;
};

// ---- The worker

void ModelWorker::start(Runtime& runtime, int index) {
  runtime_ = &runtime;
  index_ = index;
}

void ModelWorker::main() {
  sched::Idle& idle = runtime_->idle();
  idle.enter();
  int ran = 0;
  while (true) {
    if (ran < kFibersPerTurn) {
      if (take_local()) {
        ++ran;
        run();
        continue;
      }
      if (!idle.find_work(*this, index_)) break;
    } else {
      if (stopping()) break;
      collect();
      if (share_left()) idle.rung(*this, (index_ + 1) % runtime_->worker_count());
    }
    ran = 0;
  }
  ++runtime_->stopped;
}

bool ModelWorker::take_local() {
  return next_slot_.exchange(0, kSeqCst) != 0 || take_one(ready_) != 0 || take_one(unstarted_) != 0;
}

// A fiber.
void ModelWorker::run() {
  while (true) {
    char action = runtime_->next_action();
    if (action == '?') action = "swt.!"[choose(5)];
    if (action == 's') spawn();
    if (action == 'w') make_ready();
    if (action == 't') arm();
    if (action == '.') return;
    if (action == '!' && runtime_->stuck++ < runtime_->limits().stuck_max) {
      stuck_ = true;
      block_until([this] { return stopping(); });
      stuck_ = false;
      return;
    }
  }
}

void ModelWorker::make_ready() {
  if (next_slot_.exchange(1, kSeqCst) != 0) ready_.fetch_add(1, kSeqCst);
  if (runtime_->idle().sleepers() == 0) return;
  if (ready_.load(kRelaxed) >= kReadyWorthARing) {
    runtime_->idle().rung(*this, (index_ + 1) % runtime_->worker_count());
  } else {
    runtime_->idle().watched(*this);
  }
}

void ModelWorker::spawn() {
  const bool first = unstarted_.fetch_add(1, kSeqCst) == 0;
  if (runtime_->idle().sleepers() == 0) return;
  if (first) {
    runtime_->idle().watched(*this);
  } else {
    runtime_->idle().rung(*this, (index_ + 1) % runtime_->worker_count());
  }
}

void ModelWorker::arm() { timers_.fetch_add(1, kSeqCst); }

bool ModelWorker::stopping() const { return runtime_->stopping.load(kSeqCst); }

bool ModelWorker::collect() {
  take_in();
  return !queues_empty();
}

void ModelWorker::take_in() {
  take_all(notes);
  const int woken = take_all(inbox) + take_all(due_);
  if (woken != 0) ready_.fetch_add(woken, kSeqCst);
  if (int share = take_all(runtime_->injection); share != 0) unstarted_.fetch_add(share, kSeqCst);
}

bool ModelWorker::share_left() const {
  return ready_.load(kRelaxed) >= kReadyWorthARing || unstarted_.load(kRelaxed) > 1 ||
         runtime_->injection.load(kRelaxed) != 0;
}

bool ModelWorker::steal(int victim) {
  ModelWorker& other = runtime_->worker(victim);
  int count = take_half(other.ready_);
  if (count != 0) {
    ready_.fetch_add(count, kSeqCst);
    return true;
  }
  count = take_half(other.unstarted_);
  if (count != 0) unstarted_.fetch_add(count, kSeqCst);
  return count != 0;
}

bool ModelWorker::anything() const {
  if (inbox.load(kSeqCst) != 0 || notes.load(kSeqCst) != 0 || !queues_empty() ||
      runtime_->injection.load(kSeqCst) != 0)
    return true;
  for (int i = 0; i < runtime_->worker_count(); ++i) {
    const ModelWorker& other = runtime_->worker(i);
    if (other.ready_.load(kSeqCst) != 0 || other.unstarted_.load(kSeqCst) != 0) return true;
  }
  return due_.load(kRelaxed) != 0;
}

// A watcher's sleep ends when its next look would change something; looks that find nothing are left
// out, so that rest can be seen.
void ModelWorker::sleep(bool timed) {
  asleep_ = true;
  timed_ = timed;
  block_until([this, timed] {
    if (doorbell_.load(kRelaxed) != 0 || due_.load(kRelaxed) != 0) return true;
    if (!timed) return false;
    bool stranded = runtime_->idle().busy() == 0 || runtime_->injection.load(kRelaxed) != 0;
    for (int i = 0; i < runtime_->worker_count(); ++i) {
      stranded = stranded || (i != index_ && runtime_->worker(i).stranded());
    }
    return stranded;
  });
  asleep_ = false;
  doorbell_.store(0, kRelaxed);
  take_in();
}

bool ModelWorker::rescue() {
  for (int i = 0; i < runtime_->worker_count(); ++i) {
    if (i == index_) continue;
    ModelWorker& other = runtime_->worker(i);
    steal(i);
    const int woken = take_all(other.due_) + other.next_slot_.exchange(0, kSeqCst);
    if (woken != 0) ready_.fetch_add(woken, kSeqCst);
  }
  take_in();
  return !queues_empty();
}

void ModelWorker::ring(int worker) { runtime_->worker(worker).doorbell_.store(1, kSeqCst); }

// ---- The runtime

Runtime::Runtime(Schedule& schedule, const Limits& limits)
    : limits_(limits), idle_(limits.workers) {
  static constexpr std::array kWorkers = {"worker 0", "worker 1", "worker 2"};
  static constexpr std::array kProducers = {"producer 0", "producer 1"};
  for (int i = 0; i < limits.workers; ++i) {
    worker(i).start(*this, i);
    schedule.name(worker(i), kWorkers[static_cast<std::size_t>(i)]);
    schedule.add(kWorkers[static_cast<std::size_t>(i)], [this, i] { worker(i).main(); });
  }
  schedule.name(injection, "injection");
  schedule.name(stopping, "stopping");
  for (std::size_t i = 0; i < kProducers.size(); ++i) {
    if (limits.producers[i].empty()) continue;
    schedule.add(kProducers[i], [this, i] { produce(limits_.producers[i]); });
  }
  schedule.add("clock", [this] { pass_time(); });
  schedule.add("stopper", [this] {
    if (!limits_.early_stop) {
      wait_until_quiet();
      look_at_rest();
    }
    stop();
  });
}

void Runtime::produce(std::string_view actions) {
  for (const char action : actions) {
    const int target = action == '0' ? 0 : 1;
    if (action == 'i') {
      injection.fetch_add(1, kSeqCst);
      idle_.rung(worker(0));
    } else {
      Count& inbox = action == 'n' ? worker(target).notes : worker(target).inbox;
      inbox.fetch_add(1, kSeqCst);
      idle_.reach(worker(0), target);
    }
  }
}

void Runtime::pass_time() {
  while (true) {
    const auto armed = [this] {
      for (int i = 0; i < limits_.workers; ++i) {
        if (worker(i).armed()) return true;
      }
      return false;
    };
    block_until([&] { return armed() || stopping.load(kRelaxed); });
    if (stopping.load(kRelaxed)) return;
    for (int i = 0; i < limits_.workers; ++i) worker(i).pass_time();
  }
}

void Runtime::look_at_rest() {
  int asleep = 0;
  int timed = 0;
  bool work = injection.load(kRelaxed) != 0;
  for (int i = 0; i < limits_.workers; ++i) {
    const ModelWorker& one = worker(i);
    check(one.asleep() != one.stuck(), "at rest a worker is neither asleep nor stuck");
    asleep += one.asleep() ? 1 : 0;
    timed += one.timed() ? 1 : 0;
    work = work || one.stranded() ||
           (one.asleep() && one.inbox.load(kRelaxed) + one.notes.load(kRelaxed) != 0);
  }
  check(asleep == 0 || !work, "work is left while a worker sleeps");
  check(idle_.sleepers() == static_cast<unsigned>(asleep), "the sleepers are miscounted");
  check(idle_.busy() == static_cast<unsigned>(limits_.workers - asleep), "the busy are miscounted");
  check(timed <= 1 && idle_.has_watcher() == (timed == 1), "the watcher's token is lost");
  check(timed == 0 || asleep != limits_.workers, "an idle process has a timed sleeper");
}

void Runtime::stop() {
  stopping.store(true, kSeqCst);
  idle_.ring_all(worker(0));
  block_until([this] { return stopped == limits_.workers; });
}

constexpr std::array kCases = {
    Limits{"watch", 2, 1, false, {"0", "n"}, "t!"},
    Limits{"stop", 2, 1, true, {"i", ""}, "??"},
    Limits{"watcher", 2, 1, false, {"01", ""}, ".t!"},
    Limits{"1 worker", 1, 0, false, {"ii", "i0"}, "??"},
    Limits{"2 workers", 2, 1, false, {"ii", ""}, "???"},
    Limits{"messages", 2, 1, false, {"00", "i"}, "??"},
    Limits{"3 workers", 3, 2, false, {"ii", ""}, "????"},
};

// All cases, with `schedules` schedules together. Returns the exploration that failed, or the last; the
// number of schedules is that of all of them.
Result explore_cases(std::uint64_t schedules) {
  Result result;
  std::uint64_t total = 0;
  for (const Limits& limits : kCases) {
    result = explore_all(std::string("idle/") + limits.name, schedules / kCases.size(),
                         [&](Schedule& schedule) {
                           Runtime runtime(schedule, limits);
                           schedule.run();
                         });
    total += result.schedules;
    if (!result.message.empty()) break;
  }
  result.schedules = total;
  return result;
}

#ifndef WEFT_PLANT

TEST_CASE("idle: no work is left while a worker sleeps, and all hear a stop",
          "[sleep][watch][B4]") {
  REQUIRE(explore_cases(350'000).message == "");
}

#else

TEST_CASE("idle: the planted bug is found", "[sleep][watch][B4]") {
  INFO("plant " << base::kPlant);
  const Result result = explore_cases(100'000);
  REQUIRE(result.message != "");
  REQUIRE(result.schedules < 100'000);
}

#endif

}  // namespace
}  // namespace weft::model
