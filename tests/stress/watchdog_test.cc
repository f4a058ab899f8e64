// The watchdog of the stress tests, tested on a planted hang: a fiber that waits for what nobody passes on.

#include "tests/support/watchdog.h"

#include <weft/fiber.h>
#include <weft/runtime.h>

#include <string>

#include <catch2/catch.hpp>

#include "runtime/sched/core.h"
#include "runtime/sched/event_log.h"
#include "tests/death.h"
#include "tests/support/baton.h"

using namespace weft;

namespace {

constexpr std::int64_t kSoonNs = 200'000'000;

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("watchdog: a hang ends the test, with every fiber and the last events", "[watchdog]") {
  const test::Death death = test::death_of([] {
    auto runtime = Runtime::start({.workers = 2, .handle_signals = false});
    if (!runtime.ok()) _exit(9);
    test::Watchdog watchdog(
        *sched::core_of(**runtime), [] { return 1; }, kSoonNs);
    test::Baton never_passed;
    auto waiting = (*runtime)->root().spawn([&] { never_passed.take(); }, {.name = "waiting"});
    waiting.wait().IgnoreError();
  });
  INFO(death.errors);
  CHECK(death.status == 1);
  CHECK(contains(death.errors, "HANG: no progress after 1\n"));
  CHECK(contains(death.errors, "\"waiting\" spawned at"));
  CHECK(contains(death.errors, ": parked\n"));
  if (sched::kEvents) {
    CHECK(contains(death.errors, "outside: fiber"));
    CHECK(contains(death.errors, " injected\n"));
    CHECK(contains(death.errors, " starts\n"));
    CHECK(contains(death.errors, " parks\n"));
    CHECK(contains(death.errors, " sleeps\n"));
  } else {
    CHECK_FALSE(contains(death.errors, "events"));
  }
}

TEST_CASE("watchdog: progress keeps it quiet", "[watchdog]") {
  const test::Death death = test::death_of([] {
    auto runtime = Runtime::start({.workers = 2, .handle_signals = false});
    if (!runtime.ok()) _exit(9);
    std::uint64_t looks = 0;
    base::Atomic<std::uint32_t> seen{0};
    {
      test::Watchdog watchdog(
          *sched::core_of(**runtime),
          [&] {
            seen.fetch_add(1, std::memory_order_relaxed);
            return ++looks;
          },
          1);
      while (seen.load(std::memory_order_relaxed) < 100) sched_yield();
    }
    runtime->reset();
  });
  CHECK_FALSE(contains(death.errors, "HANG"));
  CHECK(death.status == 0);
}
