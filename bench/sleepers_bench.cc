// What do 100,000 fibers cost that sleep between 0 and 1 s? ms of CPU time and of wall time, on one worker,
// the first time in a process (cold) and the second (warm).
#include <weft/runtime.h>
#include <weft/scope.h>
#include <weft/time.h>

#include <atomic>
#include <random>

#include "bench/bench.h"

namespace {

using namespace weft::bench;

struct Figures {
  double cpu_ms;
  double wall_ms;
};

Figures sleep_all(weft::Runtime& runtime, long fibers, absl::Duration longest) {
  const std::int64_t cpu = cpu_ns(), wall = wall_ns();
  std::atomic<long> slept{0};
  const absl::Status status = runtime.block_on([&] {
    weft::Scope scope;
    std::minstd_rand random(1);
    for (long i = 0; i < fibers; ++i) {
      const weft::Deadline end = weft::Deadline::in(
          longest * (static_cast<double>(random()) / static_cast<double>(random.max())));
      scope.spawn([&slept, end] {
        if (!weft::sleep_until(end).ok() || end.remaining() != absl::ZeroDuration()) return;
        slept.fetch_add(1, std::memory_order_relaxed);  // relaxed: read after all have been joined
      });
    }
    return scope.join();
  });
  require(status.ok() && slept.load() == fibers, "how many fibers slept, and none too short");
  return {static_cast<double>(cpu_ns() - cpu) / 1e6, static_cast<double>(wall_ns() - wall) / 1e6};
}

}  // namespace

int main(int argc, char** argv) {
  const Run run(argc, argv);
  pin_to_one_cpu();
  auto runtime = weft::Runtime::start({.workers = 1, .handle_signals = false});
  require(runtime.ok(), "starting a runtime");
  const long fibers = run.count(100'000, 200);
  const absl::Duration longest = run.smoke() ? absl::Milliseconds(20) : absl::Seconds(1);
  for (const char* row : {"sleepers_100000_cold", "sleepers_100000_warm"}) {
    const Figures figures = sleep_all(**runtime, fibers, longest);
    report(row, {{"cpu_ms", figures.cpu_ms}, {"wall_ms", figures.wall_ms}});
  }
}
