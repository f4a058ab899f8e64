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
#include <vector>

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
      // Events first, for they take no lock; a lock may be what hangs.
      : Watchdog(std::move(progress),
                 {[&core] { return core.dump_events(); }, [&core] { return core.dump_fibers(); }},
                 hang_ns) {}
  // `reports` say what there is to say of a hang; none where a test makes one runtime after the other.
  explicit Watchdog(std::function<std::uint64_t()> progress,
                    std::vector<std::function<std::string()>> reports = {},
                    std::int64_t hang_ns = kHangNs)
      : progress_(std::move(progress)),
        reports_(std::move(reports)),
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
        std::fprintf(stderr, "HANG: no progress after %llu\n",
                     static_cast<unsigned long long>(now));
        for (auto& report : reports_) std::fprintf(stderr, "%s", report().c_str());
        _exit(1);
      }
      seen = now;
    }
  }

  const std::function<std::uint64_t()> progress_;
  const std::vector<std::function<std::string()>> reports_;
  const std::int64_t hang_ns_;
  base::Atomic<std::uint32_t> over_{0};
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace weft::test
