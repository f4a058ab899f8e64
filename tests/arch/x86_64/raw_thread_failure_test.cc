// Raw threads when the kernel refuses: the errno comes back and no stack stays behind. Each case
// runs in a child process, where a seccomp filter makes one system call fail for good.
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "arch/x86_64/raw_thread.h"
#include "tests/arch/x86_64/raw_thread_bodies.h"

namespace weft::arch::test {
namespace {

constexpr int kSkipped = 77;

// The size of the address space in pages, or a negative number.
long pages_mapped() {
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  if (file == nullptr) return -1;
  long pages = -1;
  if (std::fscanf(file, "%ld", &pages) != 1) pages = -1;
  std::fclose(file);
  return pages;
}

// From now on `call` fails with `error` in this process.
bool forbid(unsigned call, int error) {
  std::array<sock_filter, 4> program = {{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(error)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  }};
  sock_fprog filter = {program.size(), program.data()};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

// Requires that `body` returns 0 in a child; ends this program as skipped where it has no filter.
template <class Body>
void require_in_child(Body body) {
  pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) _exit(body());
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  if (WIFEXITED(status) && WEXITSTATUS(status) == kSkipped) {
    // No case can have failed before: every one needs the filter.
    std::puts("skipped: no seccomp filter can be set here");
    std::exit(kSkipped);
  }
  REQUIRE(status == 0);
}

// Which of its promises thread_create breaks where `call` fails with `error`; 0 for none.
int create_without(unsigned call, int error) {
  pages_mapped();  // whatever the C library wants to allocate for it, it has now
  if (!forbid(call, error)) return kSkipped;
  Witness witness;
  long before = pages_mapped();
  long id = thread_create(testify, &witness.thread);
  long after = pages_mapped();
  if (id != -error) return 1;
  if (before < 0 || before != after) return 2;  // the stack is still there
  if (witness.thread.id != 0) return 3;
  thread_join(&witness.thread);  // a thread that never started needs no wait
  return 0;
}

TEST_CASE("raw_thread: a failed clone gives its errno and the stack is freed", "[raw_thread]") {
  require_in_child([] { return create_without(SYS_clone, EAGAIN); });
}

TEST_CASE("raw_thread: a stack that cannot be mapped gives its errno", "[raw_thread]") {
  require_in_child([] { return create_without(SYS_mmap, ENOMEM); });
}

TEST_CASE("raw_thread: a stack without its guard gives its errno and is freed", "[raw_thread]") {
  require_in_child([] { return create_without(SYS_mprotect, ENOMEM); });
}

TEST_CASE("raw_thread: a failed thread_start leaves the stack to its caller", "[raw_thread]") {
  require_in_child([] {
    long stack = stack_create();
    if (stack <= 0) return 1;
    if (!forbid(SYS_clone, EPERM)) return kSkipped;
    Witness witness;
    char* top = reinterpret_cast<char*>(stack) + kRawStackBytes;
    if (thread_start(top, testify, &witness.thread) != -EPERM) return 2;
    *static_cast<volatile char*>(top - 1) = 1;
    return stack_destroy(stack) == 0 ? 0 : 3;
  });
}

}  // namespace
}  // namespace weft::arch::test
