// StackCache: the warm stacks that one worker holds back, so that a fiber's start and end cost no lock.
//
//   StackCache cache(pool);
//   Stack* stack = cache.acquire();              // nullptr: pool.shortage() says what failed
//   stack->owner = fiber; run_on(stack->top);
//   cache.release(stack);
//   std::uint64_t next_ns = cache.trim(now_ns);  // on the worker's way to sleep
//
// Promises: acquire and release of the default size make no system call and no atomic operation as
// long as the cache serves them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/base/plant.h"
#include "runtime/base/sanitizer.h"
#include "runtime/sched/stack.h"
#include "runtime/sched/stack_pool.h"

namespace weft::sched {

class StackCache {
 public:
  explicit StackCache(StackPool& pool);
  StackCache(const StackCache&) = delete;
  StackCache& operator=(const StackCache&) = delete;
  ~StackCache();  // gives all back

  // A stack of `bytes` (0: the default size; valid, see validate_stack_bytes()), or nullptr.
  // Call from: the owner. Never parks.
  Stack* acquire(std::size_t bytes = 0) {
    Stack* stack = list_;
    if (__builtin_expect(stack != nullptr, 1) && (bytes == 0 || bytes == default_bytes_)) {
      if constexpr (!base::planted(45)) list_ = stack->next;
      --count_;
    } else {
      stack = acquire_slow(bytes);
    }
    if constexpr (base::kAsan) annotate_acquire(stack);
    return stack;
  }

  // Requires: nobody runs on the stack. Call from: the owner. Never parks.
  void release(Stack* stack) {
    if constexpr (base::kAsan) annotate_release(stack);
    if (__builtin_expect(stack->size_class != default_class_ || count_ == kCapacity, 0)) {
      return release_slow(stack);
    }
    stack->next = list_;
    list_ = stack;
    ++count_;
  }

  // Hands all but a few stacks to the pool and lets the pool give back what it need not keep.
  // Returns when the caller should be back here, asleep or not: kNever for all workers but one.
  // Call from: the owner, on its way to sleep. Never parks; one call gives back a bounded amount and
  // then returns a time that is already over.
  std::uint64_t trim(std::uint64_t now_ns);
  // Lets another sleeping worker be the one with the timer. Call from: the owner, when it woke.
  void woke() {
    if (__builtin_expect(holds_timer_, 0)) give_timer_back();
  }

 private:
  static constexpr std::size_t kCapacity = 64;
  static constexpr std::size_t kBatch = 32;  // moved to or from the pool under one lock
  static constexpr std::size_t kKeptAsleep =
      4;  // or every turn of an almost idle worker would refill

  Stack* acquire_slow(std::size_t bytes);
  void release_slow(Stack* stack);
  void spill(std::size_t keep);
  void give_timer_back();
  static void annotate_acquire(Stack* stack);
  static void annotate_release(Stack* stack);

  Stack* list_ = nullptr;
  std::size_t count_ = 0;
  const std::size_t default_bytes_;
  const unsigned default_class_;
  bool holds_timer_ = false;
  StackPool& pool_;
};

}  // namespace weft::sched
