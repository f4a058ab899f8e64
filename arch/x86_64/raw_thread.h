// Threads with no library at all: a stack from mmap, one clone, a futex to join; all of it
// assembly.
//
//   struct Greeter {
//     arch::RawThread thread;        // first, so that the thread's function can find the rest
//     int number;
//   };
//   void greet(arch::RawThread* self) { ... reinterpret_cast<Greeter*>(self)->number ... }
//
//   long id = arch::thread_create(greet, &greeter.thread);
//   if (id < 0) ...                  // -id is the errno, and nothing is left behind
//   arch::thread_join(&greeter.thread);
//
// Requires: such a thread has no libc identity. It shares thread-local storage, errno included,
// with its
//           creator, so it may call nothing that uses either: raw system calls and plain code only.
//           The process blocks or ignores the signals whose handlers would break that rule.
// Promises: a thread ends by returning from its function; its stack is then unmapped, and after
//           thread_join everything it wrote is visible.
//
// The workers of the runtime are not made this way: they need a libc identity and go through
// adopt.h. `examples/raw_threads.cc` is a whole program on these functions. Call from: any thread.
#pragma once

#include <cstddef>
#include <cstdint>

namespace weft::arch {

// A stack is one mapping of this size; its lowest page is the guard and cannot be touched.
inline constexpr std::size_t kRawStackBytes = 64 * 1024;
inline constexpr std::size_t kRawStackGuardBytes = 4096;

// The word that outlives a thread's stack. It belongs to whoever joins, and must stay where it is
// until thread_join has returned; then the same word may serve another thread.
struct RawThread {
  // [join] The thread's id while it lives, 0 before and after. The kernel writes both: the id
  // before the thread runs its first instruction (CLONE_PARENT_SETTID), 0 after its last
  // (CLONE_CHILD_CLEARTID).
  std::uint32_t id = 0;
};

using RawThreadFunction = void (*)(RawThread* self);

// Taken by swapping 0 for 1. For a few instructions' work only: who waits burns its processor.
struct SpinLock {
  std::uint32_t taken = 0;
};

// The lowest address of a new stack, or a negative errno.
long stack_create() asm("weft_stack_create");

// Unmaps what stack_create returned; 0, or a negative errno. The stack must not be in use.
long stack_destroy(long stack) asm("weft_stack_destroy");

// The branchless core: starts `function(thread)` on the stack that ends at `stack_top` and returns
// the new thread's id, or a negative errno. Success makes the stack the thread's, failure leaves it
// the caller's.
// Requires: the kRawStackBytes below `stack_top` are a mapping, which thread_exit can unmap.
long thread_start(void* stack_top, RawThreadFunction function,
                  RawThread* thread) asm("weft_thread_start");

// Creates a stack and starts `function(thread)` on it. Returns the new thread's id, or the negative
// errno of what failed, with the stack freed.
long thread_create(RawThreadFunction function, RawThread* thread) asm("weft_thread_create");

// Returns when `thread` has ended and its stack is unmapped; at once if it never started.
// Requires: one joiner at a time, because the kernel wakes one.
void thread_join(RawThread* thread) asm("weft_thread_join");

// Adds `amount` to a word that any thread may change so; returns what the word was before.
std::uint64_t counter_add(std::uint64_t* counter, std::uint64_t amount) asm("weft_counter_add");

// [spin] What was written before spin_unlock is visible after the next spin_lock.
void spin_lock(SpinLock* lock) asm("weft_spin_lock");
void spin_unlock(SpinLock* lock) asm("weft_spin_unlock");

}  // namespace weft::arch
