// ObjectWord: the state, the waiting list and the lock of something that fibers wait for, in one word.
//
//   std::uint64_t state = word.lock();             // nobody else reads or changes the object now
//   word.unlock(state | kDone);                    // publishes the new state: the last touch
//
//   if ((word.load() & kDone) != 0) return;        // the fast path
//
// One word, because the unlock must be the last touch of an object that its waiter may destroy as soon
// as it has been woken: with the lock in a word of its own, a fast path could see the new state, let the
// waiter go, and the late unlock would write into freed memory. [object]
//
// Bit 0 is the lock. Two more bits and the pointer to the first waiter are the user's.
//
// Requires: whoever locks unlocks soon, or parks with the unlock as the end of its commit step.
// Promises: what was written before an unlock is visible after the next lock, and after a load that sees it.
#pragma once

#include <cstdint>

#include "runtime/base/atomic.h"

namespace weft::sched {

struct WaitNode;

class ObjectWord {
 public:
  static constexpr std::uint64_t kLocked = 1;
  static constexpr std::uint64_t kFlagA = 2;
  static constexpr std::uint64_t kFlagB = 4;
  static constexpr std::uint64_t kPointerMask = ~std::uint64_t{7};

  // The first waiter in a state, or null; and a state with another first waiter.
  static WaitNode* waiters(std::uint64_t state) {
    return reinterpret_cast<WaitNode*>(state & kPointerMask);
  }
  static std::uint64_t with_waiters(std::uint64_t state, WaitNode* first) {
    return (state & ~kPointerMask) | reinterpret_cast<std::uint64_t>(first);
  }

  // Waits for the lock by spinning: it is held for a few instructions, or over one switch.
  // Returns the state without the lock bit. Call from: any thread.
  std::uint64_t lock() {
    while (true) {
      std::uint64_t seen = word_.load(std::memory_order_relaxed);  // relaxed: the CAS checks it
      if ((seen & kLocked) == 0 &&
          // acquire [object]: sees what the last unlock published.
          word_.compare_exchange_weak(seen, seen | kLocked, std::memory_order_acquire,
                                      std::memory_order_relaxed)) {
        return seen;
      }
      base::spin_hint();
    }
  }

  // Publishes `state` and gives the lock back; the last touch of the object.
  void unlock(std::uint64_t state) {
    // release [object]: pairs with lock()
    word_.store(state & ~kLocked, std::memory_order_release);
  }

  // The state with the lock bit, as it was a moment ago.
  std::uint64_t load() const {
    return word_.load(std::memory_order_acquire);  // acquire [object]: pairs with unlock()
  }

 private:
  base::Atomic<std::uint64_t> word_{0};
};

}  // namespace weft::sched
