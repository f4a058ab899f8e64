// A watchdog: ends a test that makes no progress, and says what its fibers do, and what the scheduler did
// last.
//
//   test::Watchdog watchdog(core, [&] { return done.load(); });
//
// Promises: as long as the number changes every 10 s, however slow the machine, nothing happens.
#pragma once

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>
#include <thread>
#include <utility>

#include <unistd.h>

#include "runtime/base/atomic.h"
#include "runtime/os/clock.h"
#include "runtime/os/futex.h"
#include "runtime/sched/core.h"

namespace weft::test {

class Watchdog {
 public:
  static constexpr std::int64_t kHangNs = 10 * os::kNanosPerSecond;

  // Requires: `core` outlives the watchdog.
  Watchdog(sched::Core& core, std::function<std::uint64_t()> progress,
           std::int64_t hang_ns = kHangNs)
      : core_(core),
        progress_(std::move(progress)),
        hang_ns_(hang_ns),
        thread_([this] { run(); }) {}
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
      const std::int64_t deadline_ns = os::now_ns() + hang_ns_;
      while (!over() && os::futex_wait_until(over_, 0, deadline_ns) != -ETIMEDOUT) {
      }
      if (over()) return;
      const std::uint64_t now = progress_();
      if (now == seen) {
        // Events first, for they take no lock; a lock may be what hangs.
        std::fprintf(stderr, "HANG: no progress after %llu\n%s",
                     static_cast<unsigned long long>(now), core_.dump_events().c_str());
        std::fprintf(stderr, "%s", core_.dump_fibers().c_str());
        _exit(1);
      }
      seen = now;
    }
  }

  sched::Core& core_;
  const std::function<std::uint64_t()> progress_;
  const std::int64_t hang_ns_;
  base::Atomic<std::uint32_t> over_{0};
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace weft::test
