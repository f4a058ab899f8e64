// Timers: one worker's deadlines, which its own turn fires, or the watcher while the worker is stuck.
//
//   Timer timer{Timer::Kind::kSleep, fiber, epoch};
//   timers.arm(timer, deadline_ns);
//   timers.fire_due(now_ns, batch);          // a turn
//   timer.disarm();                          // afterwards nobody touches it any more
//
// Firing is unlinking and claiming under one small lock, so that a timer which was disarmed cannot be
// in the middle of firing on another thread. [timer]
//
// Promises: never early. Deadlines are rounded up to a common grain of at most the slack that their
// length allows, so that many sleepers share few wake-ups.
#pragma once

#include <cstdint>

#include "runtime/base/atomic.h"
#include "runtime/base/spin_lock.h"
#include "runtime/base/timer_wheel.h"
#include "runtime/os/clock.h"
#include "runtime/sched/wake_batch.h"

namespace weft::sched {

class Timers;

struct Timer : base::TimerNode {
  // What happens when it fires, under the timers' lock.
  using Fire = void (*)(Timer& timer, std::int64_t now_ns, WakeBatch& batch);

  explicit Timer(Fire fire_function) : fire(fire_function) {}

  // Takes it back if it has not fired. Call from: whoever armed it. Never parks.
  void disarm();

  Fire fire;
  Timers* home = nullptr;  // where it was armed last, written by who armed it; null: never
};

class Timers {
 public:
  explicit Timers(std::int64_t slack_ns) : slack_ns_(slack_ns), wheel_(os::now_ns()) {}

  // Requires: `timer` is not armed. Call from: the worker that owns this, or a fiber on it.
  void arm(Timer& timer, std::int64_t deadline_ns, std::int64_t now_ns);

  // As arm(), from a thread that must then make the worker look. Call from: any thread.
  void arm_outside(Timer& timer, std::int64_t deadline_ns, std::int64_t now_ns);

  // As arm(), but calls `commit()` before the lock is given back; if that says false, takes the timer
  // back. For a wait that is the timer: nobody can fire it before the fiber is parked.
  template <class Commit>
  void arm_and(Timer& timer, std::int64_t deadline_ns, std::int64_t now_ns, Commit commit) {
    timer.home = this;
    lock_.lock();
    insert(timer, deadline_ns, now_ns);
    if (!commit()) wheel_.remove(&timer);
    publish();
    lock_.unlock();
  }

  // Fires what is due, the oldest first, at most `most` of it. Call from: any worker.
  void fire_due(std::int64_t now_ns, WakeBatch& batch, unsigned most = ~0u);

  // The earliest deadline, kNever when none is armed; a hint unless the caller is the owner.
  std::int64_t earliest() const {
    // seq_cst [sleep]: one of the things that a sleeper looks at again; pairs with arm_outside().
    return earliest_.load(std::memory_order_seq_cst);
  }

  // Calls change() under the lock, then again sees what is earliest.
  template <class Change>
  void locked(Change change) {
    lock_.lock();
    change(*this);
    publish();
    lock_.unlock();
  }
  // Call from: under the lock.
  void insert(Timer& timer, std::int64_t deadline_ns, std::int64_t now_ns);
  void remove(Timer& timer) { wheel_.remove(&timer); }

 private:
  void publish() {
    // relaxed: all that write it hold the lock. The owner sees its own writes, or newer ones. Another worker
    // that fires or disarms here only moves it to later: the owner that misses that wakes in vain. Who
    // arms from outside moves it to earlier, and says so by a seq_cst RMW.
    earliest_.store(wheel_.earliest(), std::memory_order_relaxed);
  }

  const std::int64_t slack_ns_;
  base::SpinLock lock_;  // [timer]
  base::TimerWheel wheel_;
  base::Atomic<std::int64_t> earliest_{base::TimerWheel::kNever};
};

}  // namespace weft::sched
