// How long does it take to start a runtime, run one fiber and stop? us of wall time, with one worker, with
// two, and with one whose kernel thread is an ordinary one.
#include <weft/runtime.h>

#include "bench/bench.h"

namespace {

using namespace weft::bench;

double start_stop_us(const weft::Options& options, long times) {
  const std::int64_t began = wall_ns();
  for (long i = 0; i < times; ++i) {
    auto runtime = weft::Runtime::start(options);
    require(runtime.ok(), "starting a runtime");
    const absl::StatusOr<long> same = (*runtime)->block_on([i] { return i; });
    require(same.ok() && *same == i, "what the fiber returned");
    require((*runtime)->stop().ok(), "stopping a runtime");
  }
  return static_cast<double>(wall_ns() - began) / 1e3 / static_cast<double>(times);
}

}  // namespace

int main(int argc, char** argv) {
  const Run run(argc, argv);
  const long times = run.count(200, 3);
  const auto measure = [&](const char* row, int workers, bool raw_clone) {
    if (!run.wants(row)) return;
    const weft::Options options = {
        .workers = workers, .raw_clone = raw_clone, .handle_signals = false};
    report(row, {{"us", run.median([&] { return start_stop_us(options, times); })}});
  };
  measure("start_stop_1", 1, true);
  measure("start_stop_2", 2, true);
  measure("start_stop_1_plain", 1, false);
}
