// FiberBlock: the control block of one fiber, and FiberFrame: what only a started fiber needs.
//
// A block is 128 bytes of type-stable memory from block_pool.h: two cache lines, of which switching,
// queueing and waking touch the first alone. A fiber that has not started costs its block and nothing
// else; the frame lies at the top of the stack, in the page that the fiber touches anyway.
//
//   block   line 0   rsp, links, claim word, frame, code, group, join word
//           line 1   group list, id, spawn site, closure or result
//   stack   top      Stack (stack.h) | FiberFrame | the fiber's own frames, downwards
//
// The block belongs to the fiber, until its group has counted it, and to its handle; the last of the two
// frees it. A message about it that is on its way (the claim word says queued) keeps it a little longer.
#pragma once

#include <cstddef>
#include <cstdint>

#include "arch/x86_64/fp_control.h"
#include "runtime/base/atomic.h"
#include "runtime/base/intrusive_list.h"
#include "runtime/sched/claim_word.h"
#include "runtime/sched/object_word.h"

namespace weft::internal {
struct FiberCode;
}

namespace weft::sched {

class Group;
class Level;
class Worker;
struct FiberFrame;
struct Operation;
struct Stack;

// How a fiber ended, as its join word and its block tell.
enum class Ending : std::uint8_t {
  kRunning,
  kReturned,  // a result is in the block's storage, or an error for a fiber that never ran
  kThrew,     // a std::shared_ptr<ChildException> is
};

// What spawn fixes, and how the fiber ended, in one word: written whole, because a load of the whole waits
// for stores of its parts.
struct FiberTraits {
  static constexpr std::uint32_t kLine = 0xffffff;  // of the spawn site
  static constexpr unsigned kEndingShift = 24;
  static constexpr std::uint32_t kPinned = 1u << 26;  // stays on the worker that first runs it
  static constexpr std::uint32_t kKeepsFpControl = 1u << 27;
  static constexpr std::uint32_t kHasExtras = 1u << 28;    // a FiberExtras ends the block
  static constexpr std::uint32_t kHeapStorage = 1u << 29;  // storage points to the closure's memory

  unsigned line() const { return bits & kLine; }
  Ending ending() const { return static_cast<Ending>(bits >> kEndingShift & 3); }
  bool pinned() const { return (bits & kPinned) != 0; }
  bool keeps_fp_control() const { return (bits & kKeepsFpControl) != 0; }
  bool has_extras() const { return (bits & kHasExtras) != 0; }
  bool heap_storage() const { return (bits & kHeapStorage) != 0; }

  // Once. Call from: the fiber.
  void set_ending(Ending ending) { bits |= static_cast<std::uint32_t>(ending) << kEndingShift; }

  std::uint32_t bits = 0;
};

struct alignas(64) FiberBlock {
  // The join word: kFlagA when the fiber has ended and kFlagB when its handle is gone. The second of the
  // two to come frees the block. [life]
  static constexpr std::uint64_t kDone = ObjectWord::kFlagA;
  static constexpr std::uint64_t kDetached = ObjectWord::kFlagB;
  static constexpr std::size_t kInlineBytes = 24;

  // Line 0
  void* rsp = nullptr;                 // belongs to the switch
  FiberBlock* link = nullptr;          // the one list, by state, on which the fiber is
  FiberBlock* message_link = nullptr;  // in an inbox, while the claim word says queued
  ClaimWord claim;
  FiberFrame* frame = nullptr;  // null while it has no stack
  const internal::FiberCode* code = nullptr;
  Group* group = nullptr;
  ObjectWord join;

  // Line 1
  base::ListNode<FiberBlock> group_node;  // in the group's list, under the group's lock
  std::uint64_t id = 0;
  const char* file = nullptr;  // where it was spawned
  FiberTraits traits;
  alignas(8) std::byte storage[kInlineBytes];  // more in blocks of a larger class
};
#ifndef WEFT_RELACY  // whose atomics are larger
static_assert(sizeof(FiberBlock) == 128 && offsetof(FiberBlock, rsp) == 0);
static_assert(offsetof(FiberBlock, group_node) == 64);
#endif

// Where the closure, and later the result, of a fiber is.
inline void* fiber_storage(FiberBlock& fiber) {
  return fiber.traits.heap_storage() ? *reinterpret_cast<void**>(fiber.storage) : fiber.storage;
}

// At the end of a block that was spawned with a name or a stack size of its own.
struct FiberExtras {
  std::size_t stack_bytes;
  char name[32];  // cut if longer; always ends in a zero
};

// Why a fiber must end without having run.
enum class Refusal : std::uint8_t { kNone, kBadStackSize, kNoStack };

// On the fiber's own stack, from its first run to its end.
struct FiberFrame {
  FiberBlock* fiber = nullptr;
  Stack* stack = nullptr;
  Level* level = nullptr;          // innermost Scope, Timeout or Shield; null: the group alone
  Operation* operation = nullptr;  // while it waits in a ring
  Worker* pinned_to = nullptr;
  std::uint32_t ends_on_drain = 0;  // how many EndOnDrain live
  bool on_reserve = false;          // the stack is the worker's reserve
  Refusal refusal = Refusal::kNone;
  arch::FpControl fp_control;  // with keeps_fp_control: while the fiber is away
  void* asan_fake_stack = nullptr;
  void* tsan_fiber = nullptr;
};

}  // namespace weft::sched
