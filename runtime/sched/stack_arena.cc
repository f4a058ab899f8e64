// The guard of slot n is also what stops whoever runs off the upper end of slot n - 1; above the last
// slot stands a guard page of its own.
//
// Guards by advice cost nothing but page-table entries. Where the kernel has none, guards by
// protection split the mapping, and all of them together may use most, but not all, of the mappings
// that the process is allowed: the rest is for its heap, its libraries and its threads.
#include "runtime/sched/stack_arena.h"

#include <bit>
#include <cerrno>
#include <new>
#include <string>
#include <system_error>

#include <absl/strings/str_cat.h>

#include "runtime/base/atomic.h"
#include "runtime/base/check.h"
#include "runtime/base/plant.h"
#include "runtime/os/system.h"
#include "runtime/sched/stack_registry.h"

#if WEFT_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace weft::sched {
namespace {

using Step = StackShortage::Step;

constexpr std::size_t kEndGuardBytes = os::kPageBytes;

// [budget] Guards by protection that exist in the process, over all pools.
base::Atomic<std::size_t> protected_guards{0};

std::size_t protected_guards_max() {
  static const std::size_t limit = os::map_count_limit();
  return limit / 8 * 7 / os::kMapsPerProtectedGuard;
}

bool take_from_guard_budget() {
  // [budget] relaxed, here and where guards are given back: the number protects no other memory.
  if (protected_guards.fetch_add(1, std::memory_order_relaxed) < protected_guards_max()) {
    return true;
  }
  protected_guards.fetch_sub(1, std::memory_order_relaxed);
  return false;
}

bool fail(StackShortage& why, Step step, int negative_errno) {
  why.step = step;
  why.error = -negative_errno;
  return false;
}

std::string advice_for(Step step) {
  const std::string sysctl =
      absl::StrCat("raise the sysctl vm.max_map_count (now ", os::map_count_limit(), ")");
  switch (step) {
    case Step::kMap:
      return absl::StrCat(
          "look at RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK and vm.overcommit_memory, or ", sysctl);
    case Step::kAdviseGuard:
      return "no memory for page tables: look at the memory limit of the process's cgroup";
    case Step::kProtectGuard:
    case Step::kGuardBudget:
      return absl::StrCat(sysctl, ", or run on Linux 6.13 or newer, where guards need no mappings");
    case Step::kArenaTable:
      return "use fewer different stack sizes, or smaller stacks";
    case Step::kBookkeeping:
    case Step::kNone:
      return "the heap is exhausted";
  }
  return "";
}

const char* operation_of(Step step) {
  switch (step) {
    case Step::kMap:
      return "mmap";
    case Step::kAdviseGuard:
      return "madvise(MADV_GUARD_INSTALL)";
    case Step::kProtectGuard:
      return "mprotect of a guard";
    case Step::kGuardBudget:
      return "guard by mprotect";
    case Step::kArenaTable:
      return "table of stack arenas";
    case Step::kBookkeeping:
    case Step::kNone:
      break;
  }
  return "malloc";
}

}  // namespace

absl::Status StackShortage::status() const {
  return absl::ResourceExhaustedError(
      absl::StrCat("fiber stack of ", stack_bytes >> 10, " KiB: ", operation_of(step), ": ",
                   std::generic_category().message(error), "; ", advice_for(step)));
}

StackArena* StackArena::create(unsigned size_class, unsigned slots_log2, StackShortage& why) {
  why.stack_bytes = stack_class_bytes(size_class);
  std::unique_ptr<StackArena> arena(new (std::nothrow) StackArena(size_class, slots_log2));
  if (arena) {
    const std::size_t words = (arena->slots() + 63) / 64;
    arena->cold_bits_.reset(new (std::nothrow) std::uint64_t[words]());
  }
  if (!arena || !arena->cold_bits_) {
    fail(why, Step::kBookkeeping, -ENOMEM);
    return nullptr;
  }
  return arena->map(why) ? arena.release() : nullptr;
}

bool StackArena::map(StackShortage& why) {
  const std::size_t slot_bytes = stack_class_bytes(size_class_) << slots_log2_;
  const std::size_t bytes = slot_bytes + kEndGuardBytes;
  if (int error = os::map_region(bytes, "weft stacks", region_)) {
    return fail(why, Step::kMap, error);
  }
  if (guard(region_.base + slot_bytes, kEndGuardBytes, why)) {
    registry_number_ = register_arena(region_.base, size_class_, slots_log2_);
    if (registry_number_ >= 0) return true;
    fail(why, Step::kArenaTable, -ENOSPC);
  }
  os::unmap_region(region_);
  // [budget] relaxed: as in take_from_guard_budget().
  protected_guards.fetch_sub(protected_guards_, std::memory_order_relaxed);
  return false;
}

bool StackArena::destroy(StackArena* arena) {
  WEFT_DCHECK(arena->out() == 0, "a stack arena goes away under its users");
#if WEFT_ASAN
  // The kernel may give these addresses to anybody next, who would inherit our poison.
  const std::size_t used = stack_class_bytes(arena->size_class_) * arena->carved_;
  __asan_unpoison_memory_region(arena->region_.base, used);
#endif
  unregister_arena(arena->registry_number_);
  if (os::unmap_region(arena->region_) != 0) {
    arena->registry_number_ =
        register_arena(arena->region_.base, arena->size_class_, arena->slots_log2_);
    WEFT_CHECK(arena->registry_number_ >= 0, "no room for a stack arena that was there before");
    arena->refused_ = true;
    return false;
  }
  // [budget] relaxed: as in take_from_guard_budget().
  protected_guards.fetch_sub(arena->protected_guards_, std::memory_order_relaxed);
  delete arena;
  return true;
}

void StackArena::abandon(StackArena* arena) {
  os::release_pages(arena->region_.base, arena->region_.bytes);
  unregister_arena(arena->registry_number_);
  delete arena;  // its guards stay in the budget: they exist
}

bool StackArena::guard(std::byte* at, std::size_t bytes, StackShortage& why) {
  if (protected_guards_ == 0) {
    const int error = os::advise_guard(region_, at, bytes);
    if (error == 0) return true;
    if (error != -EINVAL) return fail(why, Step::kAdviseGuard, error);
  }
  // Once an arena has needed a guard by protection, advice is not tried there again.
  if (!take_from_guard_budget()) return fail(why, Step::kGuardBudget, -ENOMEM);
  if (int error = os::protect_guard(at, bytes)) {
    // [budget] relaxed: as in take_from_guard_budget().
    protected_guards.fetch_sub(1, std::memory_order_relaxed);
    return fail(why, Step::kProtectGuard, error);
  }
  ++protected_guards_;
  return true;
}

std::optional<std::uint32_t> StackArena::take(StackShortage& why) {
  refused_ = false;
  if (cold_ > 0) {
    while (cold_bits_[cold_hint_] == 0) ++cold_hint_;
    std::uint64_t& word = cold_bits_[cold_hint_];
    const auto bit = static_cast<std::uint32_t>(std::countr_zero(word));
    if constexpr (!base::planted(69)) word &= word - 1;
    --cold_;
    return cold_hint_ * 64 + bit;
  }
  WEFT_DCHECK(carved_ < slots(), "an arena without room was asked for a slot");
  const std::uint32_t slot = carved_;
  why.stack_bytes = stack_class_bytes(size_class_);
  if (!guard(slot_base(slot), guard_bytes(why.stack_bytes), why)) return std::nullopt;
  ++carved_;
  return slot;
}

Stack* StackArena::bind(std::uint32_t slot, std::size_t frame_bytes) {
  const std::size_t bytes = stack_class_bytes(size_class_);
  std::byte* base = slot_base(slot);
  Stack* record = stack_record(base + bytes, slot);
  const std::size_t frame = (frame_bytes + 63) / 64 * 64;
  return new (record) Stack{.low = base + guard_bytes(bytes),
                            .top = reinterpret_cast<std::byte*>(record) - frame,
                            .next = nullptr,
                            .arena = this,
                            .owner = nullptr,
                            .slot = slot,
                            .size_class = size_class_};
}

void StackArena::release_pages(std::uint32_t slot) {
  const std::size_t bytes = stack_class_bytes(size_class_);
  const std::size_t guard = guard_bytes(bytes);
  // Refused only where somebody locked the memory; then it stays, and the slot is used again as it is.
  os::release_pages(slot_base(slot) + guard, bytes - guard);
  constexpr int kGuardRemove = 103;  // MADV_GUARD_REMOVE
  if constexpr (base::planted(61)) os::system::madvise(slot_base(slot), guard, kGuardRemove);
}

void StackArena::put_cold(std::uint32_t slot) {
  cold_bits_[slot / 64] |= std::uint64_t{1} << (slot % 64);
  cold_hint_ = std::min(cold_hint_, slot / 64);
  ++cold_;
}

void StackArena::push_warm(Stack* stack) {
  stack->next = warm_list_;
  warm_list_ = stack;
  ++warm_;
}

Stack* StackArena::pop_warm() {
  Stack* stack = warm_list_;
  warm_list_ = stack->next;
  --warm_;
  refused_ = false;
  return stack;
}

std::byte* StackArena::slot_base(std::uint32_t slot) const {
  return region_.base + stack_class_bytes(size_class_) * slot;
}

}  // namespace weft::sched
