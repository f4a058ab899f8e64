// Switching stacks on one kernel thread: a loop that runs fibers, and the way back into it.
//
//   fiber.rsp = arch::seed_stack(stack_top, &fiber_main, &fiber);   // once, before it first runs
//   weft_loop(&worker);               // on the worker's stack: runs what weft_next(&worker) returns
//   void* by = weft_leave(&fiber, worker);   // on the fiber's stack: until somebody resumes it
//
// Requires: worker and fiber are objects whose first 8 bytes are a `void* rsp` that belongs to this
// file; weft_next is defined once, by whoever decides what runs.
// Promises: callee-saved registers survive as the psABI says; a backtrace unwinds at every instruction;
// nothing here knows what a fiber is.
#pragma once

#include <cstdint>

extern "C" {

// Runs what weft_next(worker) returns, again and again, until that is null.
// Call from: a kernel thread that holds no fiber. Returns on the same kernel thread.
void weft_loop(void* worker);

// Suspends `fiber`, which must be the caller, and continues weft_loop of `worker`. Returns, when the
// fiber is resumed, the worker that did so: perhaps another, on another kernel thread.
// Call from: a fiber.
void* weft_leave(void* fiber, void* worker);

// Who runs next: a fiber, or null to end the loop; and whether it has not run before. That is about the
// processor's return predictor alone (switch.S): a fiber is run rightly either way.
struct WeftNext {
  void* fiber;
  bool starts;
};

// Defined by the scheduler: on the worker's stack, finishes what the last fiber began by leaving or by
// ending, and says who runs next.
WeftNext weft_next(void* worker);

// The first frame of every fiber; see seed_stack.
void weft_entry();
}

namespace weft::arch {

// What a suspended stack looks like at its rsp; switch.S draws it.
struct SuspendedImage {
  std::uint64_t r15, r14, r13, r12, rbx, rbp;
  void (*rip)();
};
static_assert(sizeof(SuspendedImage) == 56);

// Returns, when the fiber ends, the worker that runs it then.
using FiberEntry = void* (*)(void* argument, void* worker);

// Makes the image of a fiber that has not run: resumed, it calls entry(argument, worker). `top` is 16-byte
// aligned; uses the 80 bytes below it. Returns the rsp to resume at.
// Call from: any thread. Never parks.
inline void* seed_stack(void* top, FiberEntry entry, void* argument) {
  auto* words = static_cast<std::uint64_t*>(top);
  words[-1] = 0;  // the pair that ends the chain of frame pointers
  words[-2] = 0;
  // weft_entry starts with rsp just above the image and wants it 16-byte aligned: 16 + 8 below top.
  auto* image = reinterpret_cast<SuspendedImage*>(words - 2) - 1;
  image->r15 = image->r14 = image->rbx = 0;
  image->r13 = reinterpret_cast<std::uintptr_t>(argument);
  image->r12 = reinterpret_cast<std::uintptr_t>(entry);
  image->rbp = reinterpret_cast<std::uintptr_t>(words - 2);
  // Behind its first instruction: an unwinder takes this for a return address, and looks up the byte
  // before.
  image->rip = reinterpret_cast<void (*)()>(reinterpret_cast<std::uintptr_t>(&weft_entry) + 4);
  return image;
}

}  // namespace weft::arch
