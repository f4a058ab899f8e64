// What a worker does between its turns, as the host of Idle: takes in what came from outside, robs others,
// spins, sleeps, and looks after those that are stuck.
#include <algorithm>
#include <cstdint>

#include "arch/x86_64/cpu.h"
#include "runtime/base/plant.h"
#include "runtime/os/clock.h"
#include "runtime/sched/core.h"
#include "runtime/sched/operation_wait.h"
#include "runtime/sched/wake_batch.h"
#include "runtime/sched/worker.h"

namespace weft::sched {

bool Worker::stopping() const { return core_.stopping(); }

bool Worker::collect() {
  chaos_.stall();
  WakeBatch batch;
  if (driver_->prepared() != 0 || driver_->completions_waiting()) driver_->poll(batch);
  take_in(batch);
  return !queues_empty();
}

// Everything that came from outside, completions included, into our own queues.
void Worker::take_in(WakeBatch& batch) {
  now_ns_ = os::now_ns();
  if (!messages_.empty()) handle_messages();
  auto woken = ready_inbox_.take_all();
  while (FiberBlock* fiber = woken.pop()) {
    events.note(Event::kTake, fiber->id);
    push_ready(*fiber);
  }
  timers_.fire_due(now_ns_, batch, ready_.empty() ? std::max(ran_, kTimersPerTurn) : ran_);
  while (FiberBlock* fiber = batch.take_ready()) {
    if (fiber->traits.pinned() && fiber->frame->pinned_to != this) {
      core_.send_ready(*fiber, fiber->frame->pinned_to->index_);
    } else if (shuffles_ && !fiber->traits.pinned()) {
      core_.send_ready(*fiber, (index_ + 1) % core_.worker_count());
    } else {
      push_ready(*fiber);
    }
  }
  batch.deliver();
  take_injected();
  if (!alone_ && core_.idle().sleepers() != 0) ready_.publish_seq_cst();
  counters.kernel_entries.store(driver_->kernel_entries(), std::memory_order_relaxed);
  counters.operations.store(driver_->in_flight(), std::memory_order_relaxed);
}

void Worker::handle_messages() {
  auto messages = messages_.take_all();
  while (FiberBlock* fiber = messages.pop()) {
    const ClaimWord::Received received =
        receive_message(*fiber, *driver_, static_cast<unsigned>(index_));
    if (received.message == ClaimWord::Message::kForward) {
      core_.send_message(*fiber, static_cast<int>(received.ring));
    } else if (received.message == ClaimWord::Message::kRelease) {
      BlockCache::release(fiber, blocks_);
    }
  }
}

void Worker::take_injected() {
  if (core_.injection().empty()) return;
  base::IntrusiveQueue<FiberBlock, &FiberBlock::link> share;
  core_.injection().take(share, kStealMax);
  while (FiberBlock* fiber = share.pop()) {
    events.note(Event::kTake, fiber->id);
    // Without memory for a larger queue the rest goes back and is taken again later.
    if (!keep(*fiber)) core_.injection().push(fiber);
  }
}

// Into our own queue for its kind. False: there is no memory for a larger one.
bool Worker::keep(FiberBlock& fiber) {
  const bool starts = fiber.frame == nullptr;
  happens_before(&fiber.frame);
  return starts ? unstarted_.push(&fiber) : ready_.push(&fiber);
}

bool Worker::share_left() const {
  return !alone_ &&
         (ready_.size() >= kReadyWorthARing || unstarted_.size() > 1 || !core_.injection().empty());
}

bool Worker::steal(int victim) { return steal_into(core_.worker(victim)) != 0; }

unsigned Worker::steal_into(Worker& victim) {
  FiberBlock* loot[kStealMax];
  unsigned count = victim.ready_.steal(loot, kStealMax);
  if (count == 0) count = victim.unstarted_.steal(loot, kStealMax);
  for (unsigned i = 0; i < count; ++i) {
    happens_after(loot[i]);
    happens_after(&loot[i]->frame);
    events.note(Event::kSteal, loot[i]->id, victim.index_);
    if (!keep(*loot[i])) core_.injection().push(loot[i]);
  }
  if (count != 0) {
    add(counters.steals, count);
    ready_.publish_seq_cst();  // [sleep] moved work is new work for those who look
    unstarted_.publish_seq_cst();
  }
  return count;
}

bool Worker::anything() {
  chaos_.stall();
  if (!messages_.empty_seq_cst() || !ready_inbox_.empty_seq_cst() || !queues_empty() ||
      !core_.injection().empty_seq_cst() || driver_->completions_waiting()) {
    return true;
  }
  for (int i = 0; i < core_.worker_count(); ++i) {
    Worker& other = core_.worker(i);
    if (!other.ready_.empty_seq_cst() || !other.unstarted_.empty_seq_cst()) return true;
  }
  return timers_.earliest() <= os::now_ns();
}

// One worker at a time, for as long as it has paid lately.
bool Worker::spin() {
  if (!core_.may_spin()) return false;
  std::uint32_t nobody = 0;
  // relaxed: a token that orders nothing; two spinners would only waste a little time.
  if (!core_.spinner().compare_exchange_strong(nobody, 1, std::memory_order_relaxed)) return false;
  const std::int64_t began_ns = os::now_ns();
  bool came = false;
  while (!came && os::now_ns() - began_ns < spin_limit_ns_) {
    for (int i = 0; i < 16 && !came; ++i) {
      arch::pause();
      came = driver_->completions_waiting() || !messages_.empty() || !ready_inbox_.empty() ||
             !core_.injection().empty() || stopping();
    }
    came = came || timers_.earliest() <= os::now_ns();
  }
  core_.spinner().store(0, std::memory_order_relaxed);
  spin_limit_ns_ =
      came ? std::min(2 * spin_limit_ns_, kSpinMaxNs) : std::max(spin_limit_ns_ / 2, kSpinMinNs);
  return came;
}

void Worker::sleep(bool timed) {
  chaos_.stall();
  now_ns_ = os::now_ns();
  std::int64_t until_ns = timers_.earliest();
  const std::uint64_t trim_ns = stacks_.trim(static_cast<std::uint64_t>(now_ns_));
  if (trim_ns < static_cast<std::uint64_t>(until_ns)) until_ns = static_cast<std::int64_t>(trim_ns);
  if (timed) until_ns = std::min(until_ns, now_ns_ + Idle::kWatchPeriodNs);
  add(counters.sleeps);
  events.note(Event::kSleep, 0);
  WakeBatch batch;
  driver_->wait(until_ns, now_ns_, batch);
  events.note(Event::kAwake, 0);
  stacks_.woke();
  take_in(batch);
}

// The watcher's look at the others. A worker that has not switched since the last one is stuck in a
// fiber: what it has, its next-slot too, and its timers, are started here.
bool Worker::rescue() {
  chaos_.stall();
  WakeBatch batch;
  for (int i = 0; i < core_.worker_count(); ++i) {
    Worker& other = core_.worker(i);
    if (&other == this) continue;
    const std::uint64_t switches = other.counters.switches.load(std::memory_order_acquire);
    const bool stuck = switches == other.seen_switches_;
    other.seen_switches_ = switches;
    if (!stuck) continue;
    steal_into(other);
    if constexpr (base::planted(41)) continue;
    // [slot] acq_rel: the fiber as its waker left it; the owner finds the slot empty.
    if (FiberBlock* fiber = other.next_slot_.exchange(nullptr, std::memory_order_acq_rel)) {
      events.note(Event::kRescue, fiber->id, i);
      push_ready(*fiber);
      add(counters.steals);
    }
    other.timers_.fire_due(now_ns_, batch);
  }
  take_in(batch);
  return !queues_empty();
}

void Worker::ring(int worker) {
  events.note(Event::kRing, 0, worker);
  core_.worker(worker).driver_->ring_doorbell();
}

}  // namespace weft::sched
