// A fiber's life on its stack, after its spawn and before its end: started, run, switched to and from.
//
//   ... spawn.h makes it ...
//   bind_stack(*fiber, stack, pinned_to);                        // the worker that runs it first
//   ... fiber_main on its own stack ...
//   stack = unbind_stack(*fiber);                                // the commit step of its exit
//   ... ending.h tells the others, and frees it ...
#pragma once

#include <new>

#include <absl/status/status.h>

#include "arch/x86_64/switch.h"
#include "runtime/sched/block_pool.h"
#include "runtime/sched/fiber.h"
#include "runtime/sched/stack.h"
#include "runtime/sched/switch_hooks.h"

namespace weft::sched {

// The first C++ function on a fiber's stack. Returns the worker on whose stack the rest is done.
WEFT_AROUND_SWITCH void* fiber_entry(void* fiber, void* worker);

// Makes `stack` the fiber's: the next switch to it starts it there. Call from: its worker.
inline void bind_stack(FiberBlock& fiber, Stack& stack, Worker* pinned_to) {
  stack.owner = &fiber;
  auto* frame = ::new (static_cast<void*>(stack.top)) FiberFrame;
  frame->fiber = &fiber;
  frame->stack = &stack;
  frame->pinned_to = pinned_to;
#if WEFT_TSAN
  frame->tsan_fiber = __tsan_create_fiber(0);
#endif
  fiber.rsp = arch::seed_stack(stack.top, &fiber_entry, &fiber);
  fiber.frame = frame;
}

// Takes it back. Call from: the worker, when the fiber has left its stack for good.
inline Stack* unbind_stack(FiberBlock& fiber) {
  FiberFrame* frame = fiber.frame;
#if WEFT_TSAN
  __tsan_destroy_fiber(frame->tsan_fiber);
#endif
  Stack* stack = frame->stack;
  stack->owner = nullptr;
  fiber.frame = nullptr;
  return stack;
}

// Whether the fiber's stack is its own and nobody else's: the record of the stack, the frame at its top and
// the saved registers all have to say so. Checked at every switch in builds with debug checks.
// Call from: the worker, on its own stack.
inline bool has_its_own_stack(const FiberBlock& fiber) {
  const FiberFrame& frame = *fiber.frame;
  const auto* rsp = static_cast<const std::byte*>(fiber.rsp);
  return frame.fiber == &fiber && frame.stack->owner == &fiber && rsp >= frame.stack->low &&
         rsp < frame.stack->top;
}

// Ends an unstarted fiber, on its own stack or on a reaper's: its closure is destroyed uncalled.
void refuse_fiber(FiberBlock& fiber, const absl::Status& error);

// ---- The switch, with what sanitizers need around it

// Suspends `fiber` and returns the worker that resumed it. Call from: the fiber.
WEFT_AROUND_SWITCH Worker* switch_to_worker(FiberBlock& fiber, Worker& worker);

}  // namespace weft::sched
