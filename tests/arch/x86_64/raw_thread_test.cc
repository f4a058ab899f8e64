// Raw threads inside an ordinary process, as far as that is safe: they touch neither libc nor
// thread-local storage. raw_thread_failure_test.cc has what happens when the kernel refuses.
#include "arch/x86_64/raw_thread.h"

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "arch/x86_64/syscall.h"
#include "tests/arch/x86_64/raw_thread_bodies.h"

namespace weft::arch::test {
namespace {

constexpr std::uintptr_t kPage = 4096;

bool is_mapped(std::uintptr_t address) {
  unsigned char resident;
  return arch::syscall(SYS_mincore, address & ~(kPage - 1), kPage, &resident) == 0;
}

// The kernel reads the byte, or says EFAULT where the process could not: no signal needed.
bool is_readable(std::uintptr_t address) {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  long written = arch::syscall(SYS_write, ends[1], address, 1);
  close(ends[0]);
  close(ends[1]);
  return written == 1;
}

// True also where /proc does not let us look: the joiner then only may have slept.
bool sleeps_in_futex(pid_t process) {
  char text[64];
  std::snprintf(text, sizeof text, "/proc/%d/syscall", process);
  std::FILE* file = std::fopen(text, "r");
  if (file == nullptr) return true;
  bool hidden = std::fgets(text, sizeof text, file) == nullptr;
  std::fclose(file);
  char futex[16];
  std::snprintf(futex, sizeof futex, "%d ", static_cast<int>(SYS_futex));
  return hidden || std::strncmp(text, futex, std::strlen(futex)) == 0;
}

TEST_CASE("raw_thread: a stack has one guard page, and goes away whole", "[raw_thread]") {
  long stack = stack_create();
  REQUIRE(stack > 0);
  auto bottom = static_cast<std::uintptr_t>(stack);
  std::uintptr_t top = bottom + kRawStackBytes;
  for (std::uintptr_t page = bottom; page < top; page += kPage) {
    CHECK(is_mapped(page));
    CHECK(is_readable(page) == (page >= bottom + kRawStackGuardBytes));
  }
  *reinterpret_cast<volatile char*>(top - 1) = 1;
  *reinterpret_cast<volatile char*>(bottom + kRawStackGuardBytes) = 1;

  REQUIRE(stack_destroy(stack) == 0);
  for (std::uintptr_t page = bottom; page < top; page += kPage) CHECK_FALSE(is_mapped(page));
}

TEST_CASE("raw_thread: the assembly's size of a stack is the header's", "[raw_thread]") {
  void* twice = mmap(nullptr, 2 * kRawStackBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(twice != MAP_FAILED);
  auto bottom = reinterpret_cast<std::uintptr_t>(twice);
  REQUIRE(stack_destroy(static_cast<long>(bottom)) == 0);
  CHECK_FALSE(is_mapped(bottom + kRawStackBytes - kPage));
  CHECK(is_mapped(bottom + kRawStackBytes));
  munmap(reinterpret_cast<void*>(bottom + kRawStackBytes), kRawStackBytes);
}

TEST_CASE("raw_thread: a thread runs its function on its own stack and frees it", "[raw_thread]") {
  for (int i = 0; i < 2'000; ++i) {
    Witness witness;
    long id = thread_create(testify, &witness.thread);
    REQUIRE(id > 0);
    thread_join(&witness.thread);
    REQUIRE(witness.thread.id == 0);
    REQUIRE(witness.id_at_start == static_cast<std::uint32_t>(id));
    REQUIRE(witness.id_from_kernel == static_cast<std::uint32_t>(id));
    REQUIRE_FALSE(is_mapped(witness.stack_address));
    REQUIRE(witness.frame_above == 0);
  }
}

TEST_CASE("raw_thread: thread_start runs on the stack it is given", "[raw_thread]") {
  long stack = stack_create();
  REQUIRE(stack > 0);
  auto bottom = static_cast<std::uintptr_t>(stack);
  std::uintptr_t top = bottom + kRawStackBytes;

  Witness witness;
  REQUIRE(thread_start(reinterpret_cast<void*>(top), testify, &witness.thread) > 0);
  thread_join(&witness.thread);
  // The word that was `function` now holds the rbp that the first frame pushed.
  CHECK(witness.stack_address == top - 16);
  CHECK(witness.stack_address % 16 == 0);
  CHECK_FALSE(is_mapped(bottom));
}

TEST_CASE("raw_thread: join sleeps until the thread has ended", "[raw_thread]") {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  Reader reader;
  reader.fd = ends[0];
  REQUIRE(thread_create(read_byte, &reader.thread) > 0);
  CHECK(reader.thread.id != 0);  // it cannot have ended before there is a byte

  // The byte comes from a second process, once it sees this one asleep in join.
  pid_t joiner = getpid();
  pid_t writer = fork();
  REQUIRE(writer >= 0);
  if (writer == 0) {
    while (!sleeps_in_futex(joiner)) sched_yield();
    _exit(write(ends[1], "", 1) == 1 ? 0 : 1);
  }
  thread_join(&reader.thread);
  CHECK(reader.bytes_read == 1);
  int status = 0;
  CHECK(waitpid(writer, &status, 0) == writer);
  CHECK(status == 0);
  close(ends[0]);
  close(ends[1]);
}

TEST_CASE("raw_thread: the counter and the spin lock lose nothing", "[raw_thread]") {
  constexpr std::uint64_t kTurns = 100'000;
  std::array<Counter, 4> counters;
  Tally tally;
  tally.threads = counters.size();
  for (Counter& counter : counters) {
    counter.tally = &tally;
    counter.turns = kTurns;
    REQUIRE(thread_create(count, &counter.thread) > 0);
  }
  for (Counter& counter : counters) thread_join(&counter.thread);
  CHECK(tally.atomic == counters.size() * kTurns);
  CHECK(tally.locked == counters.size() * kTurns);
  CHECK(tally.lock.taken == 0);
  CHECK(counter_add(&tally.atomic, 5) == counters.size() * kTurns);
  CHECK(tally.atomic == counters.size() * kTurns + 5);
}

}  // namespace
}  // namespace weft::arch::test
