// What does a yield cost? ns per yield, 2, 1,000 and 100,000 fibers on one worker: in cache, in the second
// level of it, and out of it; from one place of the program and from eight, 3 frames deep.
#include <string>

#include "bench/yielders.h"

int main(int argc, char** argv) {
  using namespace weft::bench;
  const Run run(argc, argv);
  pin_to_one_cpu();
  auto runtime =
      weft::Runtime::start({.workers = 1, .stack_size = 64 << 10, .handle_signals = false});
  require(runtime.ok(), "starting a runtime");
  for (const long fibers : {2, 1'000, 100'000}) {
    for (const bool distinct : {false, true}) {
      const std::string row =
          "yield_" + std::to_string(fibers) + (distinct ? "_distinct_sites" : "");
      if (!run.wants(row)) continue;
      const Yielders work = {
          .fibers = run.smoke() ? std::min(fibers, 200L) : fibers,
          .each = std::max(run.count(4'000'000, 2'000) / fibers, 2L),
          .sites = distinct ? Sites::kDistinct : Sites::kLoop,
      };
      report(row.c_str(), {{"ns", run.median([&] { return yield_ns(**runtime, work); })}});
    }
  }
}
