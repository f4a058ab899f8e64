// ForeignWaiter: how a kernel thread that is no fiber waits for what fibers wait for: by futex.
//
//   ForeignWaiter& self = ForeignWaiter::of_this_thread();
//   self.prepare();  ... link a WaitNode that names it, unlock ...  self.wait();
//
// Promises: the record outlives the wait, and the thread: it is pooled until the process ends. So a
// waker that has claimed the node may ring the record however long it takes to get there.
#pragma once

#include <cstdint>

#include "runtime/base/atomic.h"

namespace weft::sched {

struct ForeignWaiter {
  // The calling thread's record. Call from: any thread.
  static ForeignWaiter& of_this_thread();

  // relaxed: not published yet
  void prepare() { word.store(kWaiting, std::memory_order_relaxed); }
  void wait();  // blocks until notify()
  void notify();

  static constexpr std::uint32_t kWaiting = 0;
  static constexpr std::uint32_t kNotified = 1;

  // The two without the futex: what a model calls.
  bool notified() const { return word.load(std::memory_order_acquire) != kWaiting; }  // [foreign]
  void set_notified() { word.store(kNotified, std::memory_order_release); }           // [foreign]

  // [foreign] Stored with release after what the waker did; loaded with acquire.
  base::Atomic<std::uint32_t> word{kWaiting};
  ForeignWaiter* next = nullptr;  // in the pool, or in a batch of wakes
};

}  // namespace weft::sched
