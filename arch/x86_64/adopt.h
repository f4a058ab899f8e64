// One raw clone after which the caller goes on, on its own stack, as the new kernel thread.
//
//   arch::AdoptCall call{.flags = CLONE_VM | ..., .boot_stack_top = ..., ...};
//   long r = arch::weft_adopt(&call);     // 0: we are the new kernel thread; negative: we are not
//
//   old kernel thread                            new kernel thread
//   clone -------------------------------------> runs arriving(argument) on the boot stack:
//   runs leaving(argument) below its own frame;  waits there for the old thread's end
//   ends there by the exit system call --------> takes over the old one's rsp and callee-saved
//                                                registers, and returns 0 from weft_adopt
//
// So the call returns once, and to the code above it nothing has changed but the kernel thread.
//
// Requires: arriving() returns only when the old kernel thread has ended; leaving() never returns;
// both are uninstrumented when they share a TLS. The boot stack is 16-byte aligned, and nothing
// else uses it.
#pragma once

#include <cstddef>

namespace weft::arch {

struct AdoptCall {
  unsigned long flags;      // of clone(2)
  void* boot_stack_top;     // where arriving() runs
  int* tid_word;            // CLONE_PARENT_SETTID writes the new thread id here
  int* clear_word;          // CLONE_CHILD_CLEARTID clears this and wakes a futex there at its end
  void* tls;                // the value of %fs for CLONE_SETTLS
  void* argument;           // for both functions below
  void (*arriving)(void*);  // on the new kernel thread
  void (*leaving)(void*);   // on the old one
};

// The offsets that adopt.S uses.
static_assert(offsetof(AdoptCall, flags) == 0);
static_assert(offsetof(AdoptCall, boot_stack_top) == 8);
static_assert(offsetof(AdoptCall, tid_word) == 16);
static_assert(offsetof(AdoptCall, clear_word) == 24);
static_assert(offsetof(AdoptCall, tls) == 32);
static_assert(offsetof(AdoptCall, argument) == 40);
static_assert(offsetof(AdoptCall, arriving) == 48);
static_assert(offsetof(AdoptCall, leaving) == 56);

// Returns 0 on the new kernel thread, or clone's negative errno on the old one.
// Call from: any libc thread. Blocks for as long as leaving() runs.
extern "C" long weft_adopt(const AdoptCall* call);

// The address of the calling thread's control block, which is also its value of %fs.
// Call from: any libc thread.
[[gnu::always_inline]] inline void* thread_control_block() {
  void* self;
  asm("movq %%fs:0, %0" : "=r"(self));
  return self;
}

}  // namespace weft::arch
