// Stack: one guarded stack, described by a record at its own upper end.
//
//        slot of 2^n bytes
//   low address                                                                   high address
//   | guard: faults | usable, grows to the left  <- top | frame_bytes | Stack | colour |
//                   ^ low                            ^ top           ^ this record    ^ end of the slot
//
// The record lies in the page that every fiber touches anyway, so an idle stack without pages costs
// no memory at all. `frame_bytes` is what the scheduler keeps for each started fiber.
// Colour: the records of neighbouring slots lie 64 bytes apart within their pages, or the hot ends of
// all stacks would compete for the same sets of the processor's caches.
//
// Requires: nobody but the fiber on it writes between low and top.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include <absl/status/status.h>

#include "runtime/base/sanitizer.h"

namespace weft::sched {

class StackArena;

inline constexpr std::size_t kStackBytesMin = std::size_t{16} << 10;
inline constexpr std::size_t kStackBytesMax = std::size_t{1} << 30;
// Red zones make frames several times bigger under ASan.
inline constexpr std::size_t kStackBytesDefault = std::size_t{base::kAsan ? 1024 : 256} << 10;
inline constexpr std::size_t kGuardBytesMax = std::size_t{64} << 10;
inline constexpr std::size_t kStackColours = 16;

// A size class is the logarithm of the slot's size, counted from the smallest.
inline constexpr unsigned kStackClasses = 17;
constexpr unsigned stack_class(std::size_t bytes) {
  return static_cast<unsigned>(std::bit_width(bytes / kStackBytesMin)) - 1;
}
constexpr std::size_t stack_class_bytes(unsigned size_class) {
  return kStackBytesMin << size_class;
}
static_assert(stack_class_bytes(kStackClasses - 1) == kStackBytesMax);

// A stack's size counts its guard. A quarter of it, so that a frame which jumps over a page is caught.
constexpr std::size_t guard_bytes(std::size_t stack_bytes) {
  return std::min(stack_bytes / 4, kGuardBytesMax);
}

// kInvalidArgument unless `bytes` is 0 (the default) or a power of two within the limits above.
absl::Status validate_stack_bytes(std::size_t bytes);

struct alignas(64) Stack {
  std::byte* low;     // the lowest usable byte
  std::byte* top;     // where the first frame begins; 64-byte aligned
  Stack* next;        // in the list of idle stacks that this one is on
  StackArena* arena;  // whose slot it is
  void* owner;  // set by the scheduler: the fiber; read in a fault by the thread that is on it
  std::uint32_t slot;   // number within the arena
  unsigned size_class;  // stack_class_bytes() of it is the size
};
static_assert(sizeof(Stack) == 64);

// Where the record of the slot that ends at `end` lies.
inline Stack* stack_record(std::byte* end, std::uint32_t slot) {
  return reinterpret_cast<Stack*>(end - 64 * (slot % kStackColours)) - 1;
}

}  // namespace weft::sched
