// What does it cost to spawn 1,000,000 fibers and then to run them all? ns per fiber: in a process that has
// touched nothing (cold), the second time and later (warm), after prewarm, and with two workers.
#include <weft/runtime.h>
#include <weft/scope.h>

#include <atomic>

#include "bench/bench.h"
#include "bench/memory.h"

namespace {

using namespace weft::bench;

struct Figures {
  double cold;
  double warm;
};

double spawn_and_run_ns(weft::Runtime& runtime, int workers, long fibers) {
  const auto now = workers == 1 ? &cpu_ns : &wall_ns;
  std::atomic<long> ran{0};
  std::int64_t began = 0, ended = 0;
  const absl::Status status = runtime.block_on([&] {
    weft::Scope scope;
    began = now();
    for (long i = 0; i < fibers; ++i) {
      // relaxed: read after all have been joined.
      scope.spawn([&ran] { ran.fetch_add(1, std::memory_order_relaxed); });
    }
    absl::Status joined = scope.join();
    ended = now();
    return joined;
  });
  require(status.ok() && ran.load() == fibers, "how many fibers ran");
  return static_cast<double>(ended - began) / static_cast<double>(fibers);
}

Figures measure(const Run& run, int workers, std::size_t prewarm) {
  return in_fresh_process<Figures>([&run, workers, prewarm] {
    if (workers == 1) pin_to_one_cpu();
    auto runtime =
        weft::Runtime::start({.workers = workers, .handle_signals = false, .prewarm = prewarm});
    require(runtime.ok(), "starting a runtime");
    const long fibers = run.count(1'000'000, 500);
    auto once = [&] { return spawn_and_run_ns(**runtime, workers, fibers); };
    const double cold = once();
    return Figures{cold, prewarm != 0 ? 0 : run.median(once)};
  });
}

}  // namespace

int main(int argc, char** argv) {
  const Run run(argc, argv);
  const Figures one = measure(run, 1, 0);
  report("spawn_million_cold", {{"ns", one.cold}});
  report("spawn_million_warm", {{"ns", one.warm}});
  report("spawn_million_two_workers", {{"ns", measure(run, 2, 0).warm}});
  // Prewarming touches a stack for each fiber, too.
  const long fibers = run.count(1'000'000, 500);
  if (!memory_suffices(static_cast<std::size_t>(fibers) * 4'600)) return 0;
  report("spawn_million_prewarmed",
         {{"ns", measure(run, 1, static_cast<std::size_t>(fibers)).cold}});
}
