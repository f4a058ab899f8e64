// StackPool and StackCache: guarded stacks, kept warm, and given back when nobody needs them.
//
//   StackPool pool({.prewarm = 64, .frame_bytes = sizeof(FiberFrame)});    // one per runtime
//   StackCache cache(pool);                                                // one per worker
//   Stack* stack = cache.acquire();             // nullptr: pool.shortage() says what failed
//   stack->owner = fiber; run_on(stack->top);
//   cache.release(stack);
//   std::uint64_t next_ns = cache.trim(now_ns); // on the worker's way to sleep
//
// Promises: acquire and release of the default size make no system call and no atomic operation as
// long as the cache serves them. Every stack has a guard, or there is no stack. Before it fails, the
// pool gives back all idle memory and tries once more.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>

#include <absl/status/status.h>

#include "runtime/base/atomic.h"
#include "runtime/base/sanitizer.h"
#include "runtime/sched/stack.h"
#include "runtime/sched/stack_arena.h"

namespace weft::sched {

class StackCache;

struct StackUsage {
  std::size_t out = 0;   // with fibers, or in the caches of workers
  std::size_t warm = 0;  // idle in the pool, with pages
  std::size_t cold = 0;  // idle in the pool, without
  std::size_t arenas = 0;
  std::size_t mapped_bytes = 0;
};

class StackPool {
 public:
  struct Options {
    std::size_t default_bytes = kStackBytesDefault;  // valid, see validate_stack_bytes(); not 0
    std::size_t prewarm = 0;      // so many stacks of the default size are never given back
    std::size_t frame_bytes = 0;  // kept free between a stack's top and its record
  };

  static constexpr std::uint64_t kNever = ~std::uint64_t{0};
  // The policy's minute. At its end the pool keeps as many stacks as were in use at its peak, or half
  // of what it kept at the end of the minute before if that is more.
  static constexpr std::uint64_t kWindowNs = 60'000'000'000;

  explicit StackPool(const Options& options);
  StackPool(const StackPool&) = delete;
  StackPool& operator=(const StackPool&) = delete;
  // Requires: every stack was given back and no StackCache is left.
  ~StackPool();

  // Makes and touches the stacks of Options::prewarm. kResourceExhausted when not all could be had.
  // Call from: any thread. Never parks.
  absl::Status prewarm();

  // Why the last failed acquire() failed; OK when none did. Call from: any thread. Never parks.
  absl::Status shortage() const;
  StackUsage usage() const;
  const Options& options() const { return options_; }

 private:
  friend class StackCache;

  // All stacks of one size, and how many of them the policy keeps.
  struct Class {
    StackArena* first = nullptr;  // oldest
    StackArena* last = nullptr;
    std::size_t slots = 0;
    std::size_t warm = 0;
    std::size_t out = 0;
    std::size_t peak = 0;   // of `out`, since the minute began
    std::size_t kept = 0;   // decided at the end of the last minute
    std::size_t floor = 0;  // prewarm
  };
  using Lock = std::unique_lock<std::mutex>;

  // A list of up to `most` warm stacks, or else of one that was cold or fresh; empty on failure.
  Stack* take(unsigned size_class, std::size_t most);
  void give(Stack* list);
  std::uint64_t trim(std::uint64_t now_ns);

  Stack* take_warm(Class& of, std::size_t most);
  Stack* make(Class& of, unsigned size_class, Lock& lock);
  StackArena* arena_with_room(Class& of, unsigned size_class, StackShortage& why);
  // Gives back an arena or a batch of idle stacks, until `keep` warm ones are left. True: call again.
  bool shed(Class& of, std::size_t keep, Lock& lock);
  // Unmaps the youngest arena that nobody uses and that has no more than `excess` warm stacks. False:
  // there is none, and the lock was not dropped.
  bool drop_idle_arena(Class& of, std::size_t excess, Lock& lock);
  void reclaim(Lock& lock);
  void attach(Class& to, StackArena* arena);
  void detach(Class& from, StackArena* arena);
  std::size_t warm_allowed(const Class& of) const;
  bool will_shrink() const;

  const Options options_;
  mutable std::mutex mutex_;  // guards all below, but for the two atomics
  Class classes_[kStackClasses];
  StackShortage shortage_;
  std::uint64_t window_end_ns_ = 0;
  // [trim] When a trim() has something to do: kNever, kWindowWanted, or a time. Written under the
  // lock; read without it on every worker's way to sleep.
  base::Atomic<std::uint64_t> next_trim_ns_;
  // [timer] The one cache whose worker sleeps until then, so that the pool arms one timer, not many.
  base::Atomic<StackCache*> timer_holder_{nullptr};
};

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
      list_ = stack->next;
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
