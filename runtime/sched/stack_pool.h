// StackPool: the guarded stacks of a runtime, kept warm, and given back when nobody needs them.
//
//   StackPool pool({.prewarm = 64, .frame_bytes = sizeof(FiberFrame)});
//   if (auto s = pool.prewarm(); !s.ok()) return s;
//   StackCache cache(pool);                              // one per worker: takes and gives stacks
//   if (cache.acquire() == nullptr) return pool.shortage();
//
// Promises: every stack has a guard, or there is no stack. Before it fails, the pool gives back all idle
// memory and tries once more. It gives memory back only in trim(), on a worker's way to sleep.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>

#include <absl/status/status.h>

#include "runtime/base/atomic.h"
#include "runtime/base/mutex.h"
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
  using Lock = std::unique_lock<base::Mutex>;

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
  mutable base::Mutex mutex_;  // guards all below, but for the two atomics
  Class classes_[kStackClasses];
  StackShortage shortage_;
  std::uint64_t window_end_ns_ = 0;
  // [trim] When a trim() has something to do: kNever, kWindowWanted, or a time. Written under the
  // lock; read without it on every worker's way to sleep.
  base::Atomic<std::uint64_t> next_trim_ns_;
  // [timer] The one cache whose worker sleeps until then, so that the pool arms one timer, not many.
  base::Atomic<StackCache*> timer_holder_{nullptr};
};

}  // namespace weft::sched
