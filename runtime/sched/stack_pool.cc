// Invariants, under the pool's lock:
//   * a stack is out, or on the warm list of its arena, or a cold slot; the three add up to the slots
//     that an arena has carved;
//   * the oldest arena with a warm stack serves first, so that use gathers in old arenas, young ones
//     fall idle as a whole, and an idle arena goes back with one system call, page tables included.
//
// What may take long (faults on fresh pages, giving pages back, unmapping) happens outside the lock, with
// the stacks concerned counted as out; making a guard does not, it is a microsecond.
#include "runtime/sched/stack_pool.h"

#include <algorithm>
#include <bit>

#include <absl/strings/str_cat.h>

#include "runtime/base/check.h"
#include "runtime/base/plant.h"

namespace weft::sched {
namespace {

// next_trim_ns_: there is something to keep or give back, but no minute has begun yet. release() has no
// clock, so the next trim() begins it.
constexpr std::uint64_t kWindowWanted = 0;

// Stacks whose pages one trim() gives back, a fraction of a millisecond.
constexpr std::size_t kShedBatch = 256;

// The first arena of a class is small; each new one is as big as all before it together.
constexpr unsigned kFirstArenaLog2 = 24;
constexpr unsigned kFirstSlotsLog2Max = 6;
constexpr unsigned kLastArenaLog2 = 33;
constexpr unsigned kSlotsLog2Max = 15;

unsigned slots_log2_of_next_arena(unsigned size_class, std::size_t slots_so_far) {
  const auto stack_log2 = static_cast<unsigned>(std::countr_zero(stack_class_bytes(size_class)));
  const unsigned most = std::min(kSlotsLog2Max, kLastArenaLog2 - stack_log2);
  const unsigned first =
      std::min(kFirstSlotsLog2Max, kFirstArenaLog2 - std::min(kFirstArenaLog2, stack_log2));
  const auto doubled = static_cast<unsigned>(std::bit_width(slots_so_far));
  return std::clamp(doubled > 0 ? doubled - 1 : 0, first, most);
}

}  // namespace

absl::Status validate_stack_bytes(std::size_t bytes) {
  if (bytes == 0) return absl::OkStatus();
  if (std::has_single_bit(bytes) && bytes >= kStackBytesMin && bytes <= kStackBytesMax) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("stack size ", bytes, " is not a power of two from 16 KiB to 1 GiB"));
}

StackPool::StackPool(const Options& options) : options_(options), next_trim_ns_(kNever) {
  WEFT_CHECK(options.default_bytes != 0 && validate_stack_bytes(options.default_bytes).ok(),
             "a stack pool was given a default size that nobody validated");
  WEFT_CHECK(options.frame_bytes <= kStackBytesMin / 4, "the fiber frame would fill a small stack");
  classes_[stack_class(options.default_bytes)].floor = options.prewarm;
}

StackPool::~StackPool() {
  for (Class& each : classes_) {
    WEFT_CHECK(each.out == 0, "a stack pool ends while stacks are in use");
    while (StackArena* arena = each.first) {
      detach(each, arena);
      if (!StackArena::destroy(arena)) StackArena::abandon(arena);
    }
  }
}

absl::Status StackPool::prewarm() {
  const unsigned size_class = stack_class(options_.default_bytes);
  Lock lock(mutex_);
  Class& of = classes_[size_class];
  Stack* made = nullptr;
  while (of.warm + of.out < of.floor) {
    Stack* stack = make(of, size_class, lock);
    if (stack == nullptr) break;
    stack->next = made;
    made = stack;
  }
  const bool complete = of.warm + of.out >= of.floor;
  of.peak = of.kept;  // to make them was not to use them
  const StackShortage why = shortage_;
  lock.unlock();
  give(made);
  return complete ? absl::OkStatus() : why.status();
}

absl::Status StackPool::shortage() const {
  Lock lock(mutex_);
  const StackShortage why = shortage_;
  lock.unlock();
  return why.step == StackShortage::Step::kNone ? absl::OkStatus() : why.status();
}

StackUsage StackPool::usage() const {
  StackUsage usage;
  Lock lock(mutex_);
  for (const Class& each : classes_) {
    for (const StackArena* arena = each.first; arena != nullptr; arena = arena->next) {
      usage.out += arena->out();
      usage.warm += arena->warm();
      usage.cold += arena->cold();
      usage.arenas += 1;
      usage.mapped_bytes += arena->mapped_bytes();
    }
  }
  return usage;
}

// ---- Taking and giving

Stack* StackPool::take(unsigned size_class, std::size_t most) {
  Lock lock(mutex_);
  Class& of = classes_[size_class];
  return of.warm > 0 ? take_warm(of, most) : make(of, size_class, lock);
}

Stack* StackPool::take_warm(Class& of, std::size_t most) {
  const std::size_t count = std::min(most, of.warm);
  StackArena* arena = of.first;
  Stack* list = nullptr;
  Stack** tail = &list;
  for (std::size_t i = 0; i < count; ++i) {
    while (arena->warm() == 0) arena = arena->next;
    *tail = arena->pop_warm();
    tail = &(*tail)->next;
  }
  *tail = nullptr;
  of.warm -= count;
  of.out += count;
  of.peak = std::max(of.peak, of.out);
  return list;
}

// Leaves with the lock held, but drops it meanwhile.
Stack* StackPool::make(Class& of, unsigned size_class, Lock& lock) {
  StackShortage why;
  StackArena* arena = nullptr;
  std::optional<std::uint32_t> slot;
  for (int attempt = 0; attempt < 2 && !slot; ++attempt) {
    if (attempt > 0 && !base::planted(62)) reclaim(lock);
    arena = arena_with_room(of, size_class, why);
    if (arena != nullptr) slot = arena->take(why);
  }
  if (!slot) {
    shortage_ = why;
    drop_idle_arena(of, 0, lock);  // an arena that was made, but could not be guarded
    return nullptr;
  }
  of.out += 1;
  of.peak = std::max(of.peak, of.out);
  lock.unlock();
  Stack* stack = arena->bind(*slot, options_.frame_bytes);
  lock.lock();
  return stack;
}

StackArena* StackPool::arena_with_room(Class& of, unsigned size_class, StackShortage& why) {
  for (StackArena* arena = of.first; arena != nullptr; arena = arena->next) {
    if (arena->has_room()) return arena;
  }
  // A process near a limit of its address space may still get a smaller arena.
  for (unsigned log2 = slots_log2_of_next_arena(size_class, of.slots);; --log2) {
    if (StackArena* arena = StackArena::create(size_class, log2, why)) {
      attach(of, arena);
      return arena;
    }
    if (log2 == 0 || why.step != StackShortage::Step::kMap) return nullptr;
  }
}

void StackPool::give(Stack* list) {
  if (list == nullptr) return;
  Lock lock(mutex_);
  while (list != nullptr) {
    Stack* stack = list;
    list = stack->next;
    stack->arena->push_warm(stack);
    Class& of = classes_[stack->size_class];
    of.warm += 1;
    of.out -= 1;
  }
  // [trim] relaxed: only written under the lock; a worker that reads the old value trims later.
  if (next_trim_ns_.load(std::memory_order_relaxed) == kNever && will_shrink()) {
    next_trim_ns_.store(kWindowWanted, std::memory_order_relaxed);
  }
}

// ---- Giving back to the kernel

std::uint64_t StackPool::trim(std::uint64_t now_ns) {
  // [trim] relaxed: what the time stands for is read under the lock, and a stale time only makes this
  // worker come too early, which it then sees, or leave the work to the next one.
  std::uint64_t next = next_trim_ns_.load(std::memory_order_relaxed);
  if (next == kNever || (next != kWindowWanted && now_ns < next)) return next;
  Lock lock(mutex_);
  next = next_trim_ns_.load(std::memory_order_relaxed);
  if (next == kNever || (next != kWindowWanted && now_ns < next)) return next;
  if (next == kWindowWanted) {
    window_end_ns_ = now_ns + kWindowNs;
  } else if (now_ns >= window_end_ns_) {
    for (Class& each : classes_) {
      each.kept = std::max({each.peak, each.kept / 2, each.floor});
      each.peak = each.out;
    }
    window_end_ns_ = now_ns + kWindowNs;
  }
  bool unfinished = false;
  if (next != kWindowWanted) {
    for (Class& each : classes_) {
      if (!unfinished) unfinished = shed(each, warm_allowed(each), lock);
    }
  }
  next = unfinished ? now_ns : will_shrink() ? window_end_ns_ : kNever;
  next_trim_ns_.store(next, std::memory_order_relaxed);  // [trim] relaxed: as above
  return next;
}

std::size_t StackPool::warm_allowed(const Class& of) const {
  // The peak of the running minute counts as well: it will be kept when the minute ends.
  const std::size_t keep = std::max(of.kept, of.peak);
  return keep > of.out ? keep - of.out : 0;
}

bool StackPool::will_shrink() const {
  return std::any_of(std::begin(classes_), std::end(classes_), [](const Class& each) {
    return each.warm > 0 && each.warm + each.out > each.floor;
  });
}

bool StackPool::shed(Class& of, std::size_t keep, Lock& lock) {
  const std::size_t excess = of.warm > keep ? of.warm - keep : 0;
  if (drop_idle_arena(of, excess, lock)) return true;
  if (excess == 0) return false;

  struct Victim {
    StackArena* arena;
    std::uint32_t slot;
  };
  Victim victims[kShedBatch];
  std::size_t count = 0;
  for (StackArena* arena = of.last; arena != nullptr; arena = arena->previous) {
    while (arena->warm() > 0 && count < std::min(excess, kShedBatch)) {
      victims[count++] = {arena, arena->pop_warm()->slot};
    }
  }
  of.warm -= count;
  if constexpr (base::planted(32)) {
    for (std::size_t i = 0; i < count; ++i) victims[i].arena->put_cold(victims[i].slot);
  }
  lock.unlock();
  for (std::size_t i = 0; i < count; ++i) victims[i].arena->release_pages(victims[i].slot);
  lock.lock();
  for (std::size_t i = 0; i < count && !base::planted(32); ++i) {
    victims[i].arena->put_cold(victims[i].slot);
  }
  return drop_idle_arena(of, 0, lock) || of.warm > keep;
}

bool StackPool::drop_idle_arena(Class& of, std::size_t excess, Lock& lock) {
  StackArena* arena = of.last;
  while (arena != nullptr && !(arena->can_go() && arena->warm() <= excess)) arena = arena->previous;
  if (arena == nullptr) return false;
  detach(of, arena);
  of.warm -= arena->warm();
  lock.unlock();
  const bool gone = StackArena::destroy(arena);
  lock.lock();
  if (!gone) {
    attach(of, arena);
    of.warm += arena->warm();
  }
  return true;
}

void StackPool::reclaim(Lock& lock) {
  for (Class& each : classes_) {
    while (shed(each, 0, lock)) {
    }
  }
}

void StackPool::attach(Class& to, StackArena* arena) {
  arena->previous = to.last;
  arena->next = nullptr;
  (to.last != nullptr ? to.last->next : to.first) = arena;
  to.last = arena;
  to.slots += arena->slots();
}

void StackPool::detach(Class& from, StackArena* arena) {
  (arena->previous != nullptr ? arena->previous->next : from.first) = arena->next;
  (arena->next != nullptr ? arena->next->previous : from.last) = arena->previous;
  from.slots -= arena->slots();
}

}  // namespace weft::sched
