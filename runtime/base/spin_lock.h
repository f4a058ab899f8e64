// SpinLock: one byte that keeps a few instructions apart.
//
//   base::SpinLock lock_;
//   ...
//   std::lock_guard guard(lock_);      // a handful of loads and stores, no system call, no park
//
// Requires: whoever holds it neither parks nor blocks, and holds it for well under a microsecond:
//           those who wait burn their processor, and one that is preempted keeps them waiting.
// Promises: what was written under the lock is visible to the next holder. Not fair, not recursive.
#pragma once

#include <cstdint>

#include "runtime/base/atomic.h"

namespace weft::base {

class SpinLock {
 public:
  SpinLock() = default;
  SpinLock(const SpinLock&) = delete;
  SpinLock& operator=(const SpinLock&) = delete;

  // Call from: any thread. Never parks.
  void lock() {
    // acquire: [lock] what the last holder wrote before unlock() is visible from here on.
    while (locked_.exchange(1, std::memory_order_acquire) != 0) {
      // relaxed: only a hint that the exchange is worth its cache miss; waiters read a shared line.
      while (locked_.load(std::memory_order_relaxed) != 0) spin_hint();
    }
  }

  // Returns whether the lock was taken. Call from: any thread. Never parks.
  [[nodiscard]] bool try_lock() {
    // relaxed: as in lock(). acquire: [lock] as in lock().
    return locked_.load(std::memory_order_relaxed) == 0 &&
           locked_.exchange(1, std::memory_order_acquire) == 0;
  }

  // Call from: the thread that holds the lock. The store is its last touch of the lock.
  void unlock() {
    locked_.store(0, std::memory_order_release);  // [lock] publishes what the holder wrote.
  }

 private:
  // [lock] unlock() stores 0 with release, the exchange that takes the lock is an acquire.
  Atomic<std::uint8_t> locked_{0};
};

}  // namespace weft::base
