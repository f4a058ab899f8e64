// How long does a fiber take to leave its stack and another one to come back to its own? ns per switch,
// 8 fibers, through the scheduler's loop, from one place of the program and from eight, 3 frames deep.
#include "bench/yielders.h"

int main(int argc, char** argv) {
  using namespace weft::bench;
  const Run run(argc, argv);
  pin_to_one_cpu();
  auto runtime =
      weft::Runtime::start({.workers = 1, .stack_size = 64 << 10, .handle_signals = false});
  require(runtime.ok(), "starting a runtime");
  const long each = run.count(4'000'000, 800) / 8;
  if (run.wants("switch_one_site")) {
    report("switch_one_site",
           {{"ns", run.median([&] {
               return yield_ns(**runtime, {.fibers = 8, .each = each, .sites = Sites::kOneDeep});
             })}});
  }
  if (run.wants("switch_distinct_sites")) {
    report("switch_distinct_sites",
           {{"ns", run.median([&] {
               return yield_ns(**runtime, {.fibers = 8, .each = each, .sites = Sites::kDistinct});
             })}});
  }
}
