// InjectionQueue: fibers that no worker has yet: spawned or woken by threads that are not workers.
//
//   base::InjectionQueue<Fiber, &Fiber::link> injection;
//   injection.push(f);                                  // then look for a sleeper to ring
//   base::IntrusiveQueue<Fiber, &Fiber::link> share;
//   injection.take(share, 32);
//
// A list under a lock: it grows without memory, any thread puts in, any worker takes a share, and
// one lock per 32 fibers is not what costs. A worker that passes by an empty one reads one word.
//
// Requires: an element in it is in no other queue through the same link.
// Promises: first in, first out; each element is handed out once, with all that was written before.
#pragma once

#include <cstddef>
#include <mutex>

#include "arch/x86_64/cpu.h"
#include "runtime/base/atomic.h"
#include "runtime/base/intrusive_list.h"
#include "runtime/base/spin_lock.h"

namespace weft::base {

template <class T, auto Link>
class InjectionQueue {
 public:
  using Queue = IntrusiveQueue<T, Link>;

  // Call from: any thread. Never parks.
  void push(T* element) {
    std::lock_guard guard(lock_);
    queue_.push(element);
    count_.fetch_add(1,
                     std::memory_order_seq_cst);  // [sleep] publishes, before we look for sleepers.
  }

  // Moves all of `elements` in, in order. Call from: any thread. Never parks.
  void push_all(Queue& elements) {
    const std::size_t count = elements.count();
    if (count == 0) return;
    std::lock_guard guard(lock_);
    queue_.splice(elements);
    count_.fetch_add(count, std::memory_order_seq_cst);  // [sleep] as in push().
  }

  // Appends the oldest, at most `max`, to `out`. Returns how many.
  // Call from: any thread. Never parks.
  std::size_t take(Queue& out, std::size_t max) {
    // relaxed: a hint; a worker that must not miss anything asks empty_seq_cst() before it sleeps.
    if (count_.load(std::memory_order_relaxed) == 0) return 0;
    std::lock_guard guard(lock_);
    std::size_t taken = 0;
    while (taken < max) {
      T* element = queue_.pop();
      if (element == nullptr) break;
      out.push(element);
      ++taken;
    }
    // relaxed: nobody waits for the count to fall, and the lock orders it with the list.
    count_.fetch_sub(taken, std::memory_order_relaxed);
    return taken;
  }

  // A hint. Call from: any thread.
  [[nodiscard]] std::size_t size() const { return count_.load(std::memory_order_relaxed); }
  [[nodiscard]] bool empty() const { return size() == 0; }

  // [sleep] The sleeper's half.
  // Call from: any thread, after it announced its sleep by a seq_cst RMW.
  [[nodiscard]] bool empty_seq_cst() const { return count_.load(std::memory_order_seq_cst) == 0; }

 private:
  alignas(arch::kCacheLine) SpinLock lock_;
  Queue queue_;  // under lock_
  // [sleep] How many are in queue_; written under lock_. Who pushes raises it by a seq_cst RMW and
  // then loads the sleep words; who goes to sleep changes its word by a seq_cst RMW and then loads
  // this. Each writes before it reads, all four in one order, so at least one sees the other.
  Atomic<std::size_t> count_{0};
};

}  // namespace weft::base
