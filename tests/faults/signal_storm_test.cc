// Every thread is interrupted a thousand times a second, by a handler that restarts no system call: whatever
// blocks in the kernel goes on as if nothing had been. WEFT_SOAK makes it twenty times as long.
#include <weft/runtime.h>
#include <weft/time.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "tests/faults/trial.h"

namespace weft {
namespace {

std::atomic<unsigned> handled{0};

unsigned signals_wanted() { return std::getenv("WEFT_SOAK") != nullptr ? 60'000 : 3'000; }

// Sends to all threads but its own until it is destroyed.
class Storm {
 public:
  Storm() {
    struct sigaction action = {};
    action.sa_handler = [](int) { handled.fetch_add(1, std::memory_order_relaxed); };  // a count
    action.sa_flags = SA_ONSTACK;  // and not SA_RESTART
    sigaction(SIGUSR1, &action, nullptr);
    thread_ = std::thread([this] { run(); });
  }
  ~Storm() {
    over_ = true;
    thread_.join();
    // What was sent last may still be on its way, and the default would end the process.
    std::signal(SIGUSR1, SIG_IGN);
  }
  Storm(const Storm&) = delete;
  Storm& operator=(const Storm&) = delete;

 private:
  void run() {
    const long self = syscall(SYS_gettid);
    while (!over_) {
      for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
        const long thread = std::stol(entry.path().filename().string());
        if (thread != self) syscall(SYS_tgkill, getpid(), thread, SIGUSR1);
      }
      const timespec pause{0, 1'000'000};
      clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, nullptr);
    }
  }

  std::atomic<bool> over_{false};
  std::thread thread_;
};

// What blocks main's thread in run(), and a worker in its ring, until timers end it.
int sleep_a_little() {
  return weft::run(
      []() -> absl::Status {
        for (int i = 0; i < 5; ++i) {
          if (absl::Status s = sleep_for(absl::Milliseconds(3)); !s.ok()) return s;
        }
        return absl::OkStatus();
      },
      {.workers = 2});
}

TEST_CASE("signal storm: no interruption is anybody's error", "[faults][K4]") {
  test::Trying trying;
  const Storm storm;
  int services = 0;
  while (handled < signals_wanted()) {
    const test::Outcome outcome = test::echo_service();
    INFO(outcome.text());
    REQUIRE(outcome.whole());
    REQUIRE(sleep_a_little() == 0);
    ++services;
  }
  std::printf("%d services, %u signals\n", services, handled.load());
}

}  // namespace
}  // namespace weft
