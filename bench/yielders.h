// Yielders: fibers that do nothing but yield, from one place of the program or from many.
//
//   double ns = yield_ns(*runtime, {.fibers = 8, .each = 1'000'000, .sites = Sites::kDistinct});
//
// A processor predicts where a return goes from the calls before it. After a switch the calls before were
// another fiber's, so the prediction is right only if both fibers wait at the same place: cheap in a
// benchmark with one call site, and not what programs do. So benchmarks show both.
#pragma once

#include <weft/runtime.h>
#include <weft/scope.h>

#include <array>
#include <atomic>
#include <utility>
#include <vector>

#include "bench/bench.h"

namespace weft::bench {

// The assembly comment keeps compilers from merging the copies, and from making the calls jumps.
template <int Site, int Depth>
[[gnu::noinline]] void yield_below() {
  if constexpr (Depth == 0) {
    this_fiber::yield();
  } else {
    yield_below<Site, Depth - 1>();
  }
  asm volatile("# site %0, depth %1" : : "i"(Site), "i"(Depth));
}

inline constexpr std::array kYieldSites = {
    &yield_below<0, 2>, &yield_below<1, 2>, &yield_below<2, 2>, &yield_below<3, 2>,
    &yield_below<4, 2>, &yield_below<5, 2>, &yield_below<6, 2>, &yield_below<7, 2>};

enum class Sites {
  kLoop,      // all in the fiber's own loop
  kOneDeep,   // all in one place, 3 frames below it
  kDistinct,  // in eight places, 3 frames below it
};

struct Yielders {
  long fibers;
  long each;
  Sites sites;
};

// CPU time of one yield, from the moment when all fibers have started until the first one is done.
// Requires: a runtime with one worker.
//
// What the fibers share are atomics, as turns on one worker order nothing; a load and a store are what a
// plain variable costs, and no addition gets lost where one worker runs them all. None is inside the yields
// that are counted. relaxed throughout: the figures are read after the join, which publishes them.
inline double yield_ns(Runtime& runtime, const Yielders& given) {
  constexpr auto kRelaxed = std::memory_order_relaxed;
  std::atomic<long> started{0}, yielded{0};
  std::atomic<std::int64_t> began{0}, ended{0};
  auto work = [&](void (*yield)()) {
    started.store(started.load(kRelaxed) + 1, kRelaxed);
    while (started.load(kRelaxed) < given.fibers) this_fiber::yield();
    this_fiber::yield();
    if (began.load(kRelaxed) == 0) began.store(cpu_ns(), kRelaxed);
    for (long i = 0; i < given.each; ++i) yield();
    yielded.store(yielded.load(kRelaxed) + given.each, kRelaxed);
    ended.store(cpu_ns(), kRelaxed);
  };
  const absl::Status status = runtime.block_on([&] {
    Scope scope;
    for (long i = 0; i < given.fibers; ++i) {
      auto* site = given.sites == Sites::kLoop      ? &this_fiber::yield
                   : given.sites == Sites::kOneDeep ? kYieldSites[0]
                                                    : kYieldSites[static_cast<unsigned>(i) % 8];
      scope.spawn([&work, site] { work(site); });
    }
    return scope.join();
  });
  require(status.ok() && yielded.load(kRelaxed) == given.fibers * given.each,
          "how often all fibers yielded");
  return static_cast<double>(ended.load(kRelaxed) - began.load(kRelaxed)) /
         static_cast<double>(yielded.load(kRelaxed));
}

}  // namespace weft::bench
