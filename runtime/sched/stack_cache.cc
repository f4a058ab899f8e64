// The cache is a list of the last stacks that this worker gave back, all of the default size. It moves
// half a cache at a time to and from the pool: a worker that spawns and a worker that ends fibers, side
// by side, then meet at the pool's lock once in thirty-two stacks.
#include "runtime/sched/stack_cache.h"

#include <algorithm>

#if WEFT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/lsan_interface.h>
#endif

namespace weft::sched {

StackCache::StackCache(StackPool& pool)
    : default_bytes_(pool.options().default_bytes),
      default_class_(stack_class(default_bytes_)),
      pool_(pool) {}

StackCache::~StackCache() {
  spill(0);
  if (holds_timer_) give_timer_back();
}

Stack* StackCache::acquire_slow(std::size_t bytes) {
  if (bytes == 0 || bytes == default_bytes_) {
    Stack* stack = pool_.take(default_class_, kBatch);
    if (stack == nullptr) return nullptr;
    list_ = stack->next;
    for (Stack* each = list_; each != nullptr; each = each->next) ++count_;
    return stack;
  }
  Stack* stack = pool_.take(stack_class(bytes), 1);
  if (stack == nullptr && count_ > 0) {
    spill(0);  // what this worker held back may be what is missing
    stack = pool_.take(stack_class(bytes), 1);
  }
  return stack;
}

void StackCache::release_slow(Stack* stack) {
  if (stack->size_class != default_class_) {
    stack->next = nullptr;
    return pool_.give(stack);
  }
  spill(kCapacity - kBatch);
  stack->next = list_;
  list_ = stack;
  ++count_;
}

// The stacks used last stay: their upper ends are still in the processor's cache.
void StackCache::spill(std::size_t keep) {
  if (count_ <= keep) return;
  Stack** rest = &list_;
  for (std::size_t i = 0; i < keep; ++i) rest = &(*rest)->next;
  Stack* given = *rest;
  *rest = nullptr;
  count_ = keep;
  pool_.give(given);
}

std::uint64_t StackCache::trim(std::uint64_t now_ns) {
  spill(kKeptAsleep);
  const std::uint64_t next = pool_.trim(now_ns);
  if (next == StackPool::kNever) {
    woke();
    return next;
  }
  if (next <= now_ns || holds_timer_) return next;
  StackCache* nobody = nullptr;
  // [timer] relaxed, here and in give_timer_back(): who holds the timer protects no other memory, and
  // a worker that misses it takes it on its next way to sleep.
  holds_timer_ = pool_.timer_holder_.compare_exchange_strong(
      nobody, this, std::memory_order_relaxed, std::memory_order_relaxed);
  return holds_timer_ ? next : StackPool::kNever;
}

void StackCache::give_timer_back() {
  holds_timer_ = false;
  pool_.timer_holder_.store(nullptr, std::memory_order_relaxed);  // [timer] relaxed: see trim()
}

#if WEFT_ASAN

namespace {
constexpr std::size_t kPoisonedBytes = 8192;
}

// What the last fiber left behind must not be held against the next one. While somebody runs on the
// stack, it may hold the only pointer to a heap object, which the leak check has to find; only
// the usable part may be scanned, the guard faults.
void StackCache::annotate_acquire(Stack* stack) {
  if (stack == nullptr) return;
  const auto* end = reinterpret_cast<const std::byte*>(stack + 1);
  const auto bytes = static_cast<std::size_t>(end - stack->low);
  __asan_unpoison_memory_region(stack->low, bytes);
  __lsan_register_root_region(stack->low, bytes);
}

// Only the upper end of an idle stack is poisoned: most dangling pointers lead there, and the shadow
// of a whole stack would be 32 times as much memory.
void StackCache::annotate_release(Stack* stack) {
  const auto* end = reinterpret_cast<const std::byte*>(stack + 1);
  __lsan_unregister_root_region(stack->low, static_cast<std::size_t>(end - stack->low));
  const auto usable = static_cast<std::size_t>(stack->top - stack->low);
  const std::size_t poisoned = std::min(usable, kPoisonedBytes);
  __asan_poison_memory_region(stack->top - poisoned, poisoned);
}

#endif

}  // namespace weft::sched
