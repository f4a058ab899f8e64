// StackArena: one big mapping, cut into equal guarded slots.
//
//   StackShortage why;
//   StackArena* arena = StackArena::create(size_class, slots_log2, why);      // nullptr: `why` says it
//   if (auto slot = arena->take(why)) Stack* stack = arena->bind(*slot, frame_bytes);
//   arena->put_cold(slot);                         // its pages were given back; the guard is still there
//   StackArena::destroy(arena);
//
// A slot is either fresh (never used, no guard yet), cold (guarded, without pages), warm (idle, on the
// arena's list of stacks, pages resident) or out (somebody has it). Guards are made when a slot is
// taken for the first time and stay for the life of the arena: an arena may be much larger
// than what is used of it, and costs only its address space.
//
// Requires: calls are serialised by the pool's lock, except bind() and release_pages(), which need none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "runtime/os/memory.h"
#include "runtime/sched/stack.h"

namespace weft::sched {

// Why there was no stack: what failed, with which errno, and for what size.
struct StackShortage {
  enum class Step : std::uint8_t {
    kNone,
    kMap,
    kAdviseGuard,
    kProtectGuard,
    kGuardBudget,
    kArenaTable,
    kBookkeeping,
  };
  Step step = Step::kNone;
  int error = 0;  // positive
  std::size_t stack_bytes = 0;

  // kResourceExhausted: the operation, the errno text, and what to change.
  absl::Status status() const;
};

class StackArena {
 public:
  static StackArena* create(unsigned size_class, unsigned slots_log2, StackShortage& why);
  // False, and the arena lives on, when the kernel refuses: to unmap the middle of a merged mapping
  // takes one mapping more, and there may be none left.
  static bool destroy(StackArena* arena);
  // For one that the kernel would not let go when its pool ends: the pages are given back, the addresses
  // and the guards stay with the process.
  static void abandon(StackArena* arena);

  // Takes a cold slot, or a fresh one and guards it.
  std::optional<std::uint32_t> take(StackShortage& why);
  // Writes the record of a slot that was taken; this touches the stack's first page.
  Stack* bind(std::uint32_t slot, std::size_t frame_bytes);
  // Gives back what the slot's stack occupies, its record included. Needs no lock.
  void release_pages(std::uint32_t slot);
  void put_cold(std::uint32_t slot);

  // Warm stacks, the last one given back first.
  void push_warm(Stack* stack);
  Stack* pop_warm();

  std::uint32_t slots() const { return std::uint32_t{1} << slots_log2_; }
  std::uint32_t warm() const { return warm_; }
  std::uint32_t cold() const { return cold_; }
  std::uint32_t out() const { return carved_ - warm_ - cold_; }
  // Nobody has a stack of it, and the kernel has not refused to unmap it since somebody last had.
  bool can_go() const { return out() == 0 && !refused_; }
  bool has_room() const { return cold_ > 0 || carved_ < slots(); }
  std::size_t mapped_bytes() const { return region_.bytes; }
  unsigned size_class() const { return size_class_; }

  // The pool's list of the arenas of one size, oldest first.
  StackArena* previous = nullptr;
  StackArena* next = nullptr;

 private:
  StackArena(unsigned size_class, unsigned slots_log2)
      : size_class_(size_class), slots_log2_(slots_log2) {}
  bool map(StackShortage& why);
  bool guard(std::byte* at, std::size_t bytes, StackShortage& why);
  std::byte* slot_base(std::uint32_t slot) const;

  os::Region region_;
  Stack* warm_list_ = nullptr;
  std::unique_ptr<std::uint64_t[]> cold_bits_;
  int registry_number_ = -1;
  const unsigned size_class_;
  const unsigned slots_log2_;
  std::uint32_t carved_ = 0;  // slots below are guarded
  std::uint32_t cold_ = 0;
  std::uint32_t warm_ = 0;
  std::uint32_t cold_hint_ = 0;  // no bit is set in the words below
  std::uint32_t protected_guards_ = 0;
  bool refused_ = false;
};

}  // namespace weft::sched
