// A peak of a million fibers, each parked on a guarded stack of its own, and what is left of it: resident memory
// and page tables before, at the peak, when all have ended, and minute by minute of idleness. [G3]
//
//   memory_return_test          20,000 fibers; a million with WEFT_SOAK
//
// Judged by the kernel's pages, never by the clock: the pool is told that minutes pass.

#include <weft/fiber.h>
#include <weft/runtime.h>
#include <weft/scope.h>
#include <weft/time.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include <catch2/catch.hpp>

#include "bench/memory.h"
#include "runtime/sched/core.h"
#include "tests/death.h"
#include "tests/maps.h"
#include "tests/support/idle_minutes.h"
#include "tests/support/on_fiber.h"
#include "tests/support/sanitizer.h"
#include "tests/support/skip.h"
#include "tests/support/watchdog.h"

using namespace weft;

namespace {

constexpr bool kSanitized = test::kAddressSanitizer || test::kThreadSanitizer;
constexpr std::size_t kMiB = std::size_t{1} << 20;

long fibers() {
  return std::getenv("WEFT_SOAK") != nullptr && !kSanitized ? 1'000'000
         : kSanitized                                       ? 2'000
                                                            : 20'000;
}

bench::Footprint show(const char* when) {
  const bench::Footprint now = bench::footprint();
  std::printf("%-22s %8zu KiB resident %7zu KiB of page tables %5zu mappings\n", when,
              now.resident_bytes >> 10, now.page_table_bytes >> 10, bench::mappings());
  return now;
}

// The first byte above the guard is on the stack's lowest page; the one below it must fault.
[[gnu::noinline]] bool guarded() {
  const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  const std::uintptr_t low = (here - this_fiber::stack_remaining()) / 4096 * 4096;
  return test::is_unreadable(reinterpret_cast<const char*>(low - 1)) &&
         !test::is_unreadable(reinterpret_cast<const char*>(low));
}

struct Peak {
  std::atomic<long> parked{0};
  std::atomic<long> looked{0};
  std::atomic<long> unguarded{0};
  bench::Footprint at_peak;
  std::size_t mappings = 0;
};

// All are parked at once; every thousandth looks at its guard. Call from: a fiber.
absl::Status reach(Peak& peak, long count) {
  Scope scope({.on_error = OnError::kKeepGoing});
  for (long i = 0; i < count; ++i) {
    scope.spawn([&peak, i] {
      if (i % 1000 == 0) {
        ++peak.looked;
        peak.unguarded += guarded() ? 0 : 1;
      }
      ++peak.parked;
      static_cast<void>(test::park_until_interrupted());
    });
  }
  test::yield_until([&] { return peak.parked == count; });
  peak.at_peak = show("at the peak");
  peak.mappings = bench::mappings();
  scope.cancel();
  return scope.join();
}

}  // namespace

TEST_CASE("memory: what a peak of fibers took comes back", "[stack][G3][G6]") {
  const long count = fibers();
  if (!bench::memory_suffices(static_cast<std::size_t>(count) * bench::kParkedFiberBytes)) {
    return test::skip_case("too little memory is available");
  }
  std::printf("%ld fibers\n", count);
  auto runtime = Runtime::start({.workers = 2, .handle_signals = false});
  REQUIRE(runtime.ok());
  Peak peak;
  bench::Footprint before;
  bench::Footprint after;
  bench::Footprint idle;
  {
    test::Watchdog watchdog(
        [&] { return (*runtime)->metrics().switches + (*runtime)->metrics().spawned; });
    CHECK((*runtime)->block_on([] {}).ok());
    before = show("before");
    CHECK((*runtime)->block_on([&] { return reach(peak, count); }).ok());
    after = show("all have ended");
    sched::StackPool& pool = sched::core_of(**runtime)->stacks();
    while (pool.usage().out > 16) sched_yield();  // the workers fall asleep
    for (const int minutes : {2, 3, 5, 20}) {
      test::let_idle_minutes_pass(pool, minutes);
      idle = show("some idle minutes on");
    }
    CHECK(pool.usage().warm == 0);
    // And all of it again, on stacks that are cold or new.
    Peak again;
    CHECK((*runtime)->block_on([&] { return reach(again, count); }).ok());
    CHECK(again.unguarded == 0);
  }
  CHECK(peak.looked == (count + 999) / 1000);
  CHECK(peak.unguarded == 0);
  if (kSanitized) return;  // shadow memory is not ours to give back
  CHECK(peak.mappings < 1000);
  // A page for each stack at the peak; afterwards the control blocks, which are never unmapped.
  const auto stacks = static_cast<std::size_t>(count) * 4096;
  CHECK(peak.at_peak.resident_bytes - before.resident_bytes > stacks);
  CHECK(after.resident_bytes - before.resident_bytes > stacks / 2);  // still warm
  const std::size_t blocks = static_cast<std::size_t>(count) * 200;
  CHECK(idle.resident_bytes < before.resident_bytes + blocks + 4 * kMiB);
  // An arena in which somebody sleeps on a stack keeps its tables: the guards are in them.
  CHECK(idle.page_table_bytes < peak.at_peak.page_table_bytes / 2);
}
