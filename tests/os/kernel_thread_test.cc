// Adopted kernel threads: that they are whole libc threads, that their ends leave nothing behind, and
// what is left where adoption is refused. kernel_thread.h says what is promised.

#include "runtime/os/kernel_thread.h"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <link.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "runtime/os/futex.h"
#include "runtime/os/system.h"
#include "tests/support/libc_checks.h"
#include "tests/support/sanitizer.h"
#include "tests/support/thread_identity.h"

using namespace weft;

namespace {

// Starts `body` on a kernel thread, waits for its end, and tells how the thread came to be.
struct Ran {
  int error = 0;
  bool raw_clone = false;
  std::string fallback_step;
  int fallback_errno = 0;
};

template <class Body>
Ran run_on_thread(Body body, const os::KernelThreadOptions& options = {}) {
  os::KernelThread thread;
  Ran ran;
  ran.error = thread.start([](void* called) { (*static_cast<Body*>(called))(); }, &body, options);
  if (ran.error != 0) return ran;
  ran.raw_clone = thread.raw_clone();
  if (thread.fallback_step() != nullptr) ran.fallback_step = thread.fallback_step();
  ran.fallback_errno = thread.fallback_errno();
  thread.join();
  return ran;
}

bool signal_is_blocked(int signal) {
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  return sigismember(&mask, signal) == 1;
}

}  // namespace

TEST_CASE("kernel thread: libc and the kernel agree about it", "[kernel_thread][I1]") {
  const test::ThreadSecrets secrets = test::read_secrets();
  const char* wrong = "did not run";
  long tid = 0;
  const Ran ran = run_on_thread([&] {
    wrong = test::check_identity(secrets);
    tid = test::kernel_thread_id();
  });
  REQUIRE(ran.error == 0);
  INFO(ran.fallback_step << ": " << strerror(ran.fallback_errno));
  CHECK(ran.raw_clone);
  INFO((wrong != nullptr ? wrong : ""));
  CHECK(wrong == nullptr);
  CHECK(tid != test::kernel_thread_id());
}

TEST_CASE("kernel thread: libc and libstdc++ work in it", "[kernel_thread][I2]") {
  std::vector<std::string> wrong;
  const Ran ran = run_on_thread([&] {
    for (const test::LibcCheck& check : test::libc_checks()) {
      if (const char* what = check.run()) wrong.push_back(std::string(check.name) + ": " + what);
    }
  });
  REQUIRE(ran.error == 0);
  CHECK(ran.raw_clone);
  CHECK(wrong.empty());
  for (const std::string& what : wrong) UNSCOPED_INFO(what);
}

TEST_CASE("kernel thread: a recursive mutex tells two of them apart", "[kernel_thread][I2]") {
  test::RecursiveCount shared;
  const auto body = [](void* count) { static_cast<test::RecursiveCount*>(count)->run(); };
  os::KernelThread threads[2];
  REQUIRE(os::KernelThread::start_all(std::vector<os::ThreadStart>{
              {&threads[0], body, &shared}, {&threads[1], body, &shared}}) == 0);
  for (os::KernelThread& thread : threads) thread.join();
  CHECK(shared.count == 2L * test::RecursiveCount::kTurns);
}

TEST_CASE("kernel thread: its thread_locals are its own and end with it", "[kernel_thread]") {
  static thread_local int plain = 1;
  int ends = 0;
  int seen = 0;
  errno = E2BIG;
  int errno_seen = -1;
  const Ran ran = run_on_thread([&] {
    thread_local test::CountsItsEnd local(&ends);
    local.ends = &ends;
    seen = plain++;
    errno_seen = errno;
    errno = EDOM;
  });
  REQUIRE(ran.error == 0);
  CHECK(errno_seen != E2BIG);
  CHECK(errno == E2BIG);
  CHECK(seen == 1);
  CHECK(plain == 1);
  CHECK(ends == 1);
}

TEST_CASE("kernel thread: its stack is the one that libc knows", "[kernel_thread]") {
  bool inside = false;
  std::size_t bytes = 0;
  char name[16] = {};
  const Ran ran = run_on_thread(
      [&] {
        pthread_attr_t attributes;
        if (pthread_getattr_np(pthread_self(), &attributes) != 0) return;
        void* low = nullptr;
        pthread_attr_getstack(&attributes, &low, &bytes);
        pthread_attr_destroy(&attributes);
        const char* frame = static_cast<const char*>(__builtin_frame_address(0));
        inside = frame > low && frame < static_cast<char*>(low) + bytes;
        prctl(PR_GET_NAME, name);
      },
      {.name = "a-name-of-more-than-15", .stack_bytes = 100'001});
  REQUIRE(ran.error == 0);
  CHECK(inside);
  CHECK(bytes >= 100'001);
  CHECK(bytes % 4096 == 0);
  CHECK(std::string(name) == "a-name-of-more-");
}

TEST_CASE("kernel thread: SIGPIPE is blocked in it and nothing else", "[kernel_thread]") {
  bool pipe_blocked = false;
  int others_blocked = 0;
  const Ran ran = run_on_thread([&] {
    pipe_blocked = signal_is_blocked(SIGPIPE);
    for (int signal = 1; signal <= SIGRTMAX; ++signal) {
      if (signal != SIGPIPE && signal_is_blocked(signal)) ++others_blocked;
    }
    std::uint64_t mask = 0;  // as libc does not show its own two
    arch::syscall(SYS_rt_sigprocmask, 0, nullptr, &mask, sizeof mask);
    if ((mask >> (33 - 1) & 1) != 0) ++others_blocked;
  });
  REQUIRE(ran.error == 0);
  CHECK(pipe_blocked);
  CHECK(others_blocked == 0);
  CHECK_FALSE(signal_is_blocked(SIGPIPE));
}

TEST_CASE("kernel thread: the kernel releases a robust mutex that it leaves locked",
          "[kernel_thread]") {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_mutex_t mutex;
  pthread_mutex_init(&mutex, &attributes);
  pthread_mutexattr_destroy(&attributes);
  const Ran ran = run_on_thread([&] { pthread_mutex_lock(&mutex); });
  REQUIRE(ran.error == 0);
  CHECK(pthread_mutex_trylock(&mutex) == EOWNERDEAD);
  pthread_mutex_consistent(&mutex);
  pthread_mutex_unlock(&mutex);
  pthread_mutex_destroy(&mutex);
}

TEST_CASE("kernel thread: an alternate signal stack of the old kernel thread is carried over",
          "[kernel_thread]") {
  // Only a sanitizer installs one before our code runs, and takes it back at the thread's end.
  stack_t found{};
  const Ran ran = run_on_thread([&] { sigaltstack(nullptr, &found); });
  REQUIRE(ran.error == 0);
  if (test::kAddressSanitizer) {
    CHECK((found.ss_flags & SS_DISABLE) == 0);
  } else if (!test::kThreadSanitizer) {
    CHECK((found.ss_flags & SS_DISABLE) != 0);
  }
}

TEST_CASE("kernel thread: a batch starts all its threads, and each knows its argument",
          "[kernel_thread]") {
  constexpr int kThreads = 7;
  os::KernelThread threads[kThreads];
  std::atomic<int> met{0};
  struct Part {
    std::atomic<int>* met;
    long tid;
  } parts[kThreads];
  std::vector<os::ThreadStart> starts;
  for (int i = 0; i < kThreads; ++i) {
    parts[i] = {&met, 0};
    const auto body = [](void* argument) {
      Part& part = *static_cast<Part*>(argument);
      part.tid = test::kernel_thread_id();
      // All must be running at once, or this never ends. seq_cst: not needed, but nothing to gain.
      part.met->fetch_add(1, std::memory_order_seq_cst);
      while (part.met->load(std::memory_order_seq_cst) < kThreads) sched_yield();
    };
    starts.push_back({&threads[i], body, &parts[i]});
  }
  REQUIRE(os::KernelThread::start_all(starts) == 0);
  for (os::KernelThread& thread : threads) {
    CHECK(thread.raw_clone());
    thread.join();
  }
  for (int i = 1; i < kThreads; ++i) CHECK(parts[i].tid != parts[i - 1].tid);
}

TEST_CASE("kernel thread: an object can be started again after join", "[kernel_thread]") {
  os::KernelThread thread;
  int runs = 0;
  for (int i = 0; i < 3; ++i) {
    REQUIRE(thread.start([](void* counter) { ++*static_cast<int*>(counter); }, &runs) == 0);
    thread.join();
  }
  CHECK(runs == 3);
}

TEST_CASE("kernel thread: the program does not ask for a shadow stack", "[kernel_thread]") {
  constexpr std::uint32_t kGnuProperty = 0x6474e553;  // PT_GNU_PROPERTY
  constexpr std::uint32_t kFeature1And = 0xc0000002;
  constexpr std::uint32_t kShadowStack = 2;
  bool asks = false;
  const auto look = [](dl_phdr_info* object, std::size_t, void* result) {
    for (int i = 0; i < object->dlpi_phnum; ++i) {
      const auto& header = object->dlpi_phdr[i];
      if (header.p_type != kGnuProperty) continue;
      const auto* word = reinterpret_cast<const std::uint32_t*>(object->dlpi_addr + header.p_vaddr);
      // A name of 4 bytes, then properties: type, length, value, padding.
      if (word[4] == kFeature1And && (word[6] & kShadowStack) != 0)
        *static_cast<bool*>(result) = true;
    }
    return 1;  // the first object is the program
  };
  dl_iterate_phdr(look, &asks);
  CHECK_FALSE(asks);
}

// Run alone, under strace, by adoption_strace_test.py.
TEST_CASE("kernel thread: three starts", "[kernel_thread][three]") {
  for (int i = 0; i < 3; ++i) CHECK(run_on_thread([] {}).raw_clone);
}

TEST_CASE("kernel thread: fork waits for a start that has begun", "[kernel_thread][I8]") {
  std::atomic<bool> stop{false};
  int starts = 0;
  int start_errors = 0;
  std::thread starter([&] {
    // relaxed: it is joined.
    while (!stop.load(std::memory_order_relaxed)) {
      start_errors += run_on_thread([] {}).error != 0;
      ++starts;
    }
  });
  int bad_children = 0;
  const int forks = test::kThreadSanitizer ? 30 : 200;
  for (int i = 0; i < forks; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      // The lock is free in the child: a start can begin, and ends. TSan allows no thread after a fork,
      // and ASan's allocator may have been copied with its locks held.
      alarm(20);
      if (test::kThreadSanitizer || test::kAddressSanitizer) _exit(0);
      _exit(run_on_thread([] {}).raw_clone ? 0 : 1);
    }
    int status = -1;
    bad_children += waitpid(child, &status, 0) != child || status != 0;
  }
  stop.store(true, std::memory_order_relaxed);
  starter.join();
  CHECK(bad_children == 0);
  CHECK(start_errors == 0);
  CHECK(starts > 0);
}
