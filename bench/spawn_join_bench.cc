// What does a fiber cost from spawn to join, one at a time? ns per fiber, with one worker (CPU time) and
// with two (wall time: the second one should stay asleep).
#include <weft/runtime.h>
#include <weft/scope.h>

#include "bench/bench.h"

namespace {

using namespace weft::bench;

double spawn_join_ns(int workers, long fibers) {
  auto runtime = weft::Runtime::start({.workers = workers, .handle_signals = false});
  require(runtime.ok(), "starting a runtime");
  const auto now = workers == 1 ? &cpu_ns : &wall_ns;
  std::int64_t began = 0, ended = 0;
  long sum = 0;
  const absl::Status status = (*runtime)->block_on([&]() -> absl::Status {
    weft::Scope scope;
    began = now();
    for (long i = 0; i < fibers; ++i) {
      const absl::StatusOr<long> same = scope.spawn([i] { return i; }).join();
      if (!same.ok()) return same.status();
      sum += *same;
    }
    ended = now();
    return scope.join();
  });
  require(status.ok() && sum == fibers * (fibers - 1) / 2, "the sum of what the fibers returned");
  return static_cast<double>(ended - began) / static_cast<double>(fibers);
}

}  // namespace

int main(int argc, char** argv) {
  const Run run(argc, argv);
  const long fibers = run.count(1'000'000, 500);
  if (run.wants("spawn_join_two_workers")) {
    report("spawn_join_two_workers",
           {{"ns", run.median([fibers] { return spawn_join_ns(2, fibers); })}});
  }
  pin_to_one_cpu();
  if (run.wants("spawn_join")) {
    report("spawn_join", {{"ns", run.median([fibers] { return spawn_join_ns(1, fibers); })}});
  }
}
