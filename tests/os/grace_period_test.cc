// The second fact of glibc that adoption rests on, made visible: an old kernel thread does not end while a
// setresuid() that may know its id is under way, because the starter waits for the lock which that holds.
//
// The hammer of setresuid_stress_test meets this by luck, this test by construction. One thread blocks
// signal 33, so a setresuid() started now stays where it is, with the lock held, until that thread lets the
// signal in. It is started while the new thread is between its creation and its clone: there libc is asked
// to set its name, and here that function is the test's own.

#include <array>
#include <atomic>
#include <cstdint>
#include <fstream>
#include <string>
#include <thread>

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "arch/x86_64/syscall.h"
#include "runtime/os/futex.h"
#include "runtime/os/kernel_thread.h"

using namespace weft;

namespace {

constexpr std::uint64_t kSetxid = std::uint64_t{1} << (33 - 1);

// A door that opens once; what was done before that is visible behind it.
class Door {
 public:
  void open() {
    word_.store(1, std::memory_order_release);  // pairs with pass()
    os::futex_wake(word_, 100);
  }
  void pass() {
    // acquire: pairs with open().
    while (word_.load(std::memory_order_acquire) == 0) os::futex_wait(word_, 0);
  }

 private:
  base::Atomic<std::uint32_t> word_{0};
};

struct Stage {
  Door blocked;  // the blocking thread has blocked its signal
  Door call;     // setresuid() may begin
  Door answer;   // the blocking thread lets the signal in
  std::atomic<long> blocking_tid{0};
  std::atomic<long> old_tid{0};
  std::atomic<bool> ran{false};
};

std::atomic<Stage*> stage{nullptr};

std::string task_file(long tid, const char* name) {
  return "/proc/self/task/" + std::to_string(tid) + "/" + name;
}

bool setxid_is_pending(long tid) {
  std::string line;
  for (std::ifstream status(task_file(tid, "status")); std::getline(status, line);) {
    if (line.rfind("SigPnd:", 0) == 0) {
      return (std::stoull(line.substr(7), nullptr, 16) & kSetxid) != 0;
    }
  }
  return false;
}

bool is_alive(long tid) { return access(task_file(tid, "stat").c_str(), F_OK) == 0; }

}  // namespace

// On the new thread, before it is adopted. seq_cst here and below: the test has no order to argue.
extern "C" int pthread_setname_np(pthread_t, const char*) noexcept {
  Stage* const current = stage.exchange(nullptr, std::memory_order_seq_cst);
  if (current == nullptr) return 0;
  current->old_tid.store(arch::syscall(SYS_gettid), std::memory_order_seq_cst);
  current->call.open();
  while (!setxid_is_pending(current->blocking_tid.load(std::memory_order_seq_cst))) sched_yield();
  return 0;
}

TEST_CASE("kernel thread: its old kernel thread outlives a setresuid() that began before",
          "[kernel_thread][I5]") {
  Stage on;
  std::thread blocking([&on] {
    on.blocking_tid.store(arch::syscall(SYS_gettid), std::memory_order_seq_cst);
    arch::syscall(SYS_rt_sigprocmask, SIG_BLOCK, &kSetxid, nullptr, sizeof kSetxid);
    on.blocked.open();
    on.answer.pass();
    arch::syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &kSetxid, nullptr, sizeof kSetxid);
  });
  on.blocked.pass();
  int call_result = -1;
  std::thread calling([&on, &call_result] {
    on.call.pass();
    constexpr auto kKeep = static_cast<uid_t>(-1);
    call_result = setresuid(kKeep, kKeep, kKeep);  // changes nothing, and still asks every thread
  });

  os::KernelThread thread;
  int error = -1;
  stage.store(&on, std::memory_order_seq_cst);
  std::thread starting([&on, &thread, &error] {
    const auto body = [](void* ran) {
      static_cast<std::atomic<bool>*>(ran)->store(true, std::memory_order_seq_cst);
    };
    error = thread.start(body, &on.ran);
  });

  // Until the old thread knows that the call is under way, and then for as long as a start takes by far.
  while (!setxid_is_pending(on.blocking_tid.load(std::memory_order_seq_cst))) sched_yield();
  for (int looks = 0; looks < 5'000 && !on.ran.load(std::memory_order_seq_cst); ++looks) {
    sched_yield();
    is_alive(on.old_tid.load(std::memory_order_seq_cst));  // costs some microseconds
  }
  const bool ran_early = on.ran.load(std::memory_order_seq_cst);
  const bool old_alive = is_alive(on.old_tid.load(std::memory_order_seq_cst));

  on.answer.open();
  blocking.join();
  calling.join();
  starting.join();
  CHECK_FALSE(ran_early);
  CHECK(old_alive);
  CHECK(call_result == 0);
  REQUIRE(error == 0);
  CHECK(thread.raw_clone());
  thread.join();
  CHECK(on.ran.load(std::memory_order_seq_cst));
}
