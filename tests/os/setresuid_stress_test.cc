// setresuid() in a loop against threads that are being started: no start may hang, and no thread may run
// with old credentials. Without the comparison of credentials 4 of 300 do. A missing grace period it meets
// only with luck; grace_period_test sees that one by construction. [I5]
//
//   setresuid_stress_test [starts]          3,000 by default; 77 when not root
//
// Prints the seed, the starts and calls, how many threads were started anew because their credentials had
// become stale during the start, and how many ran with stale ones (must be 0).

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <thread>

#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/syscall.h"
#include "runtime/os/clock.h"
#include "runtime/os/futex.h"
#include "runtime/os/kernel_thread.h"

using namespace weft;

namespace {

constexpr unsigned kOtherUser = 1000;
constexpr int kBatch = 2;
constexpr std::int64_t kHangNs = 10 * os::kNanosPerSecond;

// All counters are relaxed: they are statistics, and the watchdog only looks whether they move.
std::atomic<long> starts{0};
std::atomic<long> calls{0};

unsigned effective_user() {
  unsigned real = 0;
  unsigned effective = 0;
  unsigned saved = 0;
  arch::syscall(SYS_getresuid, &real, &effective, &saved);
  return effective;
}

// Changes the effective user of the process for ever, but for pauses.
class Hammer {
 public:
  explicit Hammer(std::uint64_t seed) : thread_([this, seed] { run(seed); }) {}
  ~Hammer() {
    set(kStop);
    thread_.join();
  }

  // No call is in progress between pause() and resume().
  void pause() {
    set(kPause);
    // acquire: [hammer] pairs with run(): the last call has ended.
    for (std::uint32_t state; (state = state_.load(std::memory_order_acquire)) != kPaused;) {
      os::futex_wait(state_, state);
    }
  }
  void resume() { set(kRun); }

 private:
  enum State : std::uint32_t { kRun, kPause, kPaused, kStop };

  void set(State state) {
    state_.store(state, std::memory_order_release);  // [hammer] what the starter saw is over
    os::futex_wake(state_, 2);
  }

  void run(std::uint64_t seed) {
    std::mt19937_64 random(seed);
    for (unsigned i = 0;; ++i) {
      // acquire: [hammer] pairs with set().
      const std::uint32_t state = state_.load(std::memory_order_acquire);
      if (state == kStop) return;
      if (state == kPause) {
        set(kPaused);
        continue;
      }
      if (state == kPaused) {
        os::futex_wait(state_, kPaused);
        continue;
      }
      if (setresuid(static_cast<uid_t>(-1), i % 2 == 0 ? kOtherUser : 0, 0) != 0) std::abort();
      calls.fetch_add(1, std::memory_order_relaxed);
      // Half of the time back to back, else after a pause that lands anywhere in a start.
      if (random() % 2 == 0) {
        for (std::uint64_t spins = random() % 20'000; spins > 0; --spins) arch::pause();
      }
    }
  }

  base::Atomic<std::uint32_t> state_{kRun};
  std::thread thread_;  // last: it uses the state
};

// Ends the process when neither starts nor calls have moved for 10 s.
class Watchdog {
 public:
  Watchdog() : thread_([this] { run(); }) {}
  ~Watchdog() {
    over_.store(1, std::memory_order_relaxed);  // relaxed: it publishes nothing
    os::futex_wake(over_, 1);
    thread_.join();
  }

 private:
  void run() {
    long starts_seen = -1;
    long calls_seen = -1;
    while (over_.load(std::memory_order_relaxed) == 0) {
      const long starts_now = starts.load(std::memory_order_relaxed);
      const long calls_now = calls.load(std::memory_order_relaxed);
      // Both must move: a hang of either side stops only that one when the other is not waiting for it.
      if (starts_now == starts_seen || calls_now == calls_seen) dump(starts_now, calls_now);
      starts_seen = starts_now;
      calls_seen = calls_now;
      const std::int64_t deadline_ns = os::now_ns() + kHangNs;
      while (over_.load(std::memory_order_relaxed) == 0 &&
             os::futex_wait_until(over_, 0, deadline_ns) != -ETIMEDOUT) {
      }
    }
  }

  [[noreturn]] static void dump(long starts_now, long calls_now) {
    std::printf("HANG: starts=%ld calls=%ld\n", starts_now, calls_now);
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
      std::printf("thread %s\n", task.path().filename().c_str());
      for (const char* name : {"comm", "syscall", "status"}) {
        std::ifstream file(task.path() / name);
        for (std::string line; std::getline(file, line);) {
          const bool wanted = name != std::string("status") || line.rfind("State", 0) == 0 ||
                              line.rfind("Sig", 0) == 0 || line.rfind("Uid", 0) == 0;
          if (wanted) std::printf("  %s\n", line.c_str());
        }
      }
    }
    std::fflush(stdout);
    _exit(1);
  }

  base::Atomic<std::uint32_t> over_{0};
  std::thread thread_;  // last: it uses the word
};

// A started thread waits for the end of its round and then tells whose credentials it has.
struct Reporter {
  base::Atomic<std::uint32_t> asked{0};
  unsigned user = ~0u;

  static void run(void* self) {
    auto* reporter = static_cast<Reporter*>(self);
    // acquire: the hammer has paused; pairs with ask().
    while (reporter->asked.load(std::memory_order_acquire) == 0) {
      os::futex_wait(reporter->asked, 0);
    }
    reporter->user = effective_user();
  }
  void ask() {
    asked.store(1, std::memory_order_release);  // pairs with run()
    os::futex_wake(asked, 1);
  }
};

struct Totals {
  long restarts = 0;
  long stale = 0;
  long plain = 0;
};

// Returns 0, or the error of the start.
int round(Hammer& hammer, Totals& totals) {
  os::KernelThread threads[kBatch];
  Reporter reporters[kBatch];
  os::ThreadStart batch[kBatch];
  for (int i = 0; i < kBatch; ++i) batch[i] = {&threads[i], Reporter::run, &reporters[i]};
  if (int error = os::KernelThread::start_all(batch); error != 0) return error;
  hammer.pause();
  for (Reporter& reporter : reporters) reporter.ask();
  for (os::KernelThread& thread : threads) thread.join();
  for (int i = 0; i < kBatch; ++i) {
    totals.restarts += threads[i].restarts();
    totals.plain += threads[i].raw_clone() ? 0 : 1;
    totals.stale += reporters[i].user != effective_user() ? 1 : 0;
  }
  hammer.resume();
  starts.fetch_add(kBatch, std::memory_order_relaxed);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (geteuid() != 0) {
    std::puts("skipped: needs root to change users");
    return 77;
  }
  const long wanted = argc > 1 ? std::atol(argv[1]) : 3'000;
  const char* seed_text = std::getenv("WEFT_SEED");
  const std::uint64_t seed =
      seed_text != nullptr ? std::strtoull(seed_text, nullptr, 0) : std::random_device()();
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  std::fflush(stdout);

  Totals totals;
  int error = 0;
  {
    Watchdog watchdog;
    Hammer hammer(seed);
    while (error == 0 && starts.load(std::memory_order_relaxed) < wanted) {
      error = round(hammer, totals);
    }
  }
  // A process that has changed users may not be traced, and the leak sanitizer traces at exit.
  if (setresuid(static_cast<uid_t>(-1), 0, 0) == 0) prctl(PR_SET_DUMPABLE, 1);
  std::printf("starts=%ld calls=%ld restarts=%ld stale=%ld plain=%ld error=%d\n",
              starts.load(std::memory_order_relaxed), calls.load(std::memory_order_relaxed),
              totals.restarts, totals.stale, totals.plain, error);
  return error == 0 && totals.stale == 0 && totals.plain == 0 ? 0 : 1;
}
