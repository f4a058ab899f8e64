// Sleep until a word changes, and wake who sleeps on it: kernel threads, not fibers.
//
//   while (word.load(std::memory_order_acquire) == kHeld) os::futex_wait(word, kHeld);   // sleeper
//
//   word.store(kFree, std::memory_order_release);                                        // waker
//   os::futex_wake(word, 1);
//
// Requires: a waiter loops: a wait may end for no reason. Whoever changes the word wakes afterwards.
// Promises: no wake between the caller's look at the word and its sleep is lost, because the kernel
// compares again. A futex orders nothing by itself: that is the word's loads and stores.
//
// futex_wait() and futex_wake() are always inlined, so that code without instrumentation may use
// them, too.
#pragma once

#include <atomic>
#include <cstdint>

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>

#include "arch/x86_64/syscall.h"
#include "runtime/base/atomic.h"
#include "runtime/os/clock.h"

namespace weft::os {

enum class FutexScope : int {
  kPrivate = FUTEX_PRIVATE_FLAG,  // between threads of this process; cheaper
  kShared = 0,  // as the kernel's own wake at a thread's end (CLONE_CHILD_CLEARTID)
};

// Sleeps while `word` is `expected`. Returns 0 when woken, -EAGAIN when the word was different, or
// -EINTR.
// Call from: any thread, also one without a libc identity. Blocks the kernel thread.
[[gnu::always_inline]] inline int futex_wait(const base::Atomic<std::uint32_t>& word,
                                             std::uint32_t expected,
                                             FutexScope scope = FutexScope::kPrivate) {
  return static_cast<int>(
      arch::syscall(SYS_futex, &word, FUTEX_WAIT | static_cast<int>(scope), expected, nullptr));
}

// As futex_wait(), at most until `deadline_ns` on the clock of now_ns(): then -ETIMEDOUT. kNever is
// allowed.
// Call from: any thread. Blocks the kernel thread.
inline int futex_wait_until(const base::Atomic<std::uint32_t>& word, std::uint32_t expected,
                            std::int64_t deadline_ns) {
  if (deadline_ns == kNever) return futex_wait(word, expected);
  const timespec deadline{deadline_ns / kNanosPerSecond, deadline_ns % kNanosPerSecond};
  // The BITSET form takes an absolute time; a relative one would start again with every spurious
  // wake-up.
  return static_cast<int>(arch::syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE, expected,
                                        &deadline, nullptr, FUTEX_BITSET_MATCH_ANY));
}

// Wakes up to `count` sleepers and returns how many. The word may be gone by now: a wake on memory
// that is used for something else wakes at most somebody who loops.
// Call from: any thread, also one without a libc identity. Never blocks.
[[gnu::always_inline]] inline int futex_wake(const base::Atomic<std::uint32_t>& word, int count,
                                             FutexScope scope = FutexScope::kPrivate) {
  return static_cast<int>(
      arch::syscall(SYS_futex, &word, FUTEX_WAKE | static_cast<int>(scope), count));
}

}  // namespace weft::os
