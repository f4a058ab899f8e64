// What the raw threads of raw_thread_test.cc run. It is a file of its own because such a thread
// has no libc identity: no sanitizer's runtime may be called from it, so these are compiled
// without.
#pragma once

#include <cstdint>

#include "arch/x86_64/raw_thread.h"

namespace weft::arch::test {

// Notes what its thread sees of itself.
struct Witness {
  RawThread thread;
  std::uint32_t id_at_start = 0;     // the join word, read by the thread's first statements
  std::uint32_t id_from_kernel = 0;  // gettid
  std::uintptr_t stack_address = 0;  // of a variable of the function
  std::uintptr_t frame_above = 1;    // the end of the chain of frame pointers
};
void testify(RawThread* self);

// Once all threads are there, counts first with an atomic, then with a lock.
struct Tally {
  std::uint64_t threads = 0;
  std::uint64_t arrived = 0;
  std::uint64_t atomic = 0;
  SpinLock lock;
  std::uint64_t locked = 0;  // [spin] protected by lock
};
struct Counter {
  RawThread thread;
  Tally* tally = nullptr;
  std::uint64_t turns = 0;
};
void count(RawThread* self);

// Waits for a byte on a descriptor, so that its joiner has to sleep.
struct Reader {
  RawThread thread;
  int fd = -1;
  long bytes_read = 0;
};
void read_byte(RawThread* self);

}  // namespace weft::arch::test
