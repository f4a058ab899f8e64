// A watchdog: ends a test that makes no progress, and says what its fibers do.
//
//   test::Watchdog watchdog([&] { return done.load(); }, [&] { return core.dump_fibers(); });
//
// Promises: as long as the number changes every 10 s, however slow the machine, nothing happens.
#pragma once

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>
#include <thread>

#include <unistd.h>

#include "runtime/base/atomic.h"
#include "runtime/os/clock.h"
#include "runtime/os/futex.h"

namespace weft::test {

class Watchdog {
 public:
  static constexpr std::int64_t kHangNs = 10 * os::kNanosPerSecond;

  Watchdog(std::function<std::uint64_t()> progress, std::function<std::string()> report)
      : progress_(std::move(progress)), report_(std::move(report)), thread_([this] { run(); }) {}
  ~Watchdog() {
    over_.store(1, std::memory_order_relaxed);  // relaxed: it publishes nothing
    os::futex_wake(over_, 1);
    thread_.join();
  }
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

 private:
  bool over() const { return over_.load(std::memory_order_relaxed) != 0; }  // relaxed: as above

  void run() {
    std::uint64_t seen = progress_();
    while (true) {
      const std::int64_t deadline_ns = os::now_ns() + kHangNs;
      while (!over() && os::futex_wait_until(over_, 0, deadline_ns) != -ETIMEDOUT) {
      }
      if (over()) return;
      const std::uint64_t now = progress_();
      if (now == seen) {
        std::fprintf(stderr, "HANG: no progress in 10 s after %llu\n%s",
                     static_cast<unsigned long long>(now), report_().c_str());
        _exit(1);
      }
      seen = now;
    }
  }

  std::function<std::uint64_t()> progress_;
  std::function<std::string()> report_;
  base::Atomic<std::uint32_t> over_{0};
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace weft::test
