// How long does a tree of 1,000,000 leaves take, each inner fiber spawning ten and joining them? ms of
// wall time, with one worker and with two, and the most stacks that were in use meanwhile.
#include <weft/runtime.h>
#include <weft/scope.h>

#include <atomic>

#include "bench/bench.h"

namespace {

using namespace weft::bench;

struct Tree {
  weft::Runtime& runtime;
  std::atomic<std::uint64_t> stacks_max{0};

  // The sum of `size` numbers from `first` on.
  long sum(long first, long size) {
    if (size == 1) {
      if (first % 4'096 == 0) note_stacks();
      return first;
    }
    weft::Scope scope;
    const long part = size / 10;
    auto child = [&](long i) {
      return scope.spawn([this, from = first + i * part, part] { return sum(from, part); });
    };
    weft::Fiber<long> children[] = {child(0), child(1), child(2), child(3), child(4),
                                    child(5), child(6), child(7), child(8), child(9)};
    long total = 0;
    for (int i = 9; i >= 0; --i) total += children[i].join().value_or(-1);
    return total;
  }

  // A sample: the greatest of those of all leaves looked at. Two that race cost a sample, not the sum.
  void note_stacks() {
    const std::uint64_t now = runtime.metrics().stacks;
    if (now > stacks_max.load(std::memory_order_relaxed)) {
      stacks_max.store(now, std::memory_order_relaxed);
    }
  }
};

void measure(const Run& run, const char* row, int workers) {
  if (!run.wants(row)) return;
  const long leaves = run.count(1'000'000, 1'000);
  auto runtime = weft::Runtime::start({.workers = workers, .handle_signals = false});
  require(runtime.ok(), "starting a runtime");
  Tree tree{**runtime};
  const double ms = run.median([&] {
    const std::int64_t began = wall_ns();
    const absl::StatusOr<long> sum = (*runtime)->block_on([&] { return tree.sum(0, leaves); });
    require(sum.ok() && *sum == leaves * (leaves - 1) / 2, "the sum of all leaves");
    return static_cast<double>(wall_ns() - began) / 1e6;
  });
  report(row, {{"ms", ms}, {"stacks", static_cast<double>(tree.stacks_max.load())}});
}

}  // namespace

int main(int argc, char** argv) {
  const Run run(argc, argv);
  measure(run, "skynet_2", 2);
  pin_to_one_cpu();
  measure(run, "skynet_1", 1);
}
