// No work is left behind a worker that is blocked, and nothing is woken for nothing. Judged in counts of
// turns and sleeps, never by the clock.

#include <weft/fiber.h>
#include <weft/runtime.h>
#include <weft/scope.h>
#include <weft/time.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include <poll.h>
#include <sched.h>

#include <catch2/catch.hpp>

#include "runtime/sched/core.h"
#include "runtime/sched/worker.h"
#include "tests/support/baton.h"
#include "tests/support/on_fiber.h"
#include "tests/support/watchdog.h"

using namespace weft;
using test::on_fiber;

namespace {

bool soak() { return std::getenv("WEFT_SOAK") != nullptr; }

// How often the workers gave their processors away by themselves, as the kernel counts it.
std::uint64_t kernel_sleeps() {
  std::uint64_t sum = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream status(task.path() / "status");
    bool is_worker = false;
    for (std::string line; std::getline(status, line);) {
      is_worker |= line.rfind("Name:\tweft-", 0) == 0;
      if (is_worker && line.rfind("voluntary_ctxt_switches:", 0) == 0) {
        sum += std::stoull(line.substr(line.find('\t')));
      }
    }
  }
  return sum;
}

}  // namespace

TEST_CASE("scheduler: what a blocked worker holds runs on the other one", "[scheduler][C6]") {
  constexpr int kOthers = 1000;
  std::atomic<int> ran{0};
  std::atomic<int> on_the_blocked{0};
  std::atomic<bool> slot_ran{false};
  on_fiber({.workers = 2}, [&] {
    sched::Core& core = sched::Core::of(*sched::current_fiber());
    test::Watchdog watchdog(core, [&] { return static_cast<std::uint64_t>(ran.load()); });
    std::atomic<bool> parked{false};
    test::Baton baton;
    Scope scope;
    scope.spawn([&] {
      parked = true;
      baton.take();
      ++ran;
      slot_ran = true;
    });
    test::yield_until([&] { return parked.load(); });
    for (int turns = 0; turns < 10; ++turns) this_fiber::yield();
    const long blocked = test::kernel_thread();
    for (int i = 1; i < kOthers; ++i) {
      scope.spawn([&, blocked] {
        on_the_blocked += test::kernel_thread() == blocked ? 1 : 0;
        ++ran;
      });
    }
    baton.pass();  // into this worker's next-slot
    // Blocks the kernel thread, not the fiber: nothing here gives the worker back.
    while (ran != kOthers) sched_yield();
    static_cast<void>(scope.join());
  });
  CHECK(ran == kOthers);
  CHECK(slot_ran);
  CHECK(on_the_blocked == 0);
}

TEST_CASE("scheduler: timers of a blocked worker fire on the other one", "[scheduler][C6]") {
  std::atomic<int> woken{0};
  on_fiber({.workers = 2}, [&] {
    Scope scope;
    std::atomic<int> asleep{0};
    for (int i = 0; i < 20; ++i) {
      scope.spawn([&] {
        ++asleep;
        woken += sleep_for(absl::Milliseconds(20)).ok() ? 1 : 0;
      });
    }
    test::yield_until([&] { return asleep == 20; });
    sched::Core& core = sched::Core::of(*sched::current_fiber());
    test::Watchdog watchdog(core, [&] { return static_cast<std::uint64_t>(woken.load()); });
    while (woken != 20) sched_yield();
    static_cast<void>(scope.join());
  });
  CHECK(woken == 20);
}

// One worker for the task, and one that watches while that one is busy: the others sleep on.
TEST_CASE("scheduler: a task for a sleeping runtime wakes at most two workers", "[scheduler][C9]") {
  constexpr unsigned kWorkers = 8;
  const std::uint64_t tasks = soak() ? 10'000 : 1'000;
  auto started = Runtime::start({.workers = kWorkers, .handle_signals = false});
  REQUIRE(started.ok());
  Runtime& runtime = **started;
  sched::Core& core = *sched::core_of(runtime);
  const auto wait_until_asleep = [&core] {
    while (core.idle().sleepers() != kWorkers) sched_yield();
  };
  wait_until_asleep();
  const std::uint64_t before = runtime.metrics().sleeps;
  std::atomic<std::uint64_t> done{0};
  test::Watchdog watchdog(core, [&] { return done.load(); });
  for (; done < tasks; ++done) {
    static_cast<void>(runtime.block_on([] {}));
    wait_until_asleep();
  }
  // Who was woken sleeps again.
  const std::uint64_t wakes = runtime.metrics().sleeps - before;
  std::printf("%llu tasks, %llu wakes\n", static_cast<unsigned long long>(tasks),
              static_cast<unsigned long long>(wakes));
  CHECK(wakes <= 2 * tasks);
}

TEST_CASE("scheduler: an idle process has no wake-ups", "[scheduler][C10]") {
  const int workers = GENERATE(1, 2, 4);
  auto started = Runtime::start({.workers = workers, .handle_signals = false});
  REQUIRE(started.ok());
  Runtime& runtime = **started;
  // Load of every kind, timers included, that is over afterwards.
  const absl::Status loaded = runtime.block_on([] {
    Scope scope;
    for (int i = 0; i < 500; ++i) {
      scope.spawn([i] {
        Timeout timeout(absl::Hours(1));
        for (int turns = i % 7; turns > 0; --turns) this_fiber::yield();
        return sleep_for(absl::Microseconds(10 * (i % 50)));
      });
    }
    return scope.join();
  });
  CHECK(loaded.ok());

  // One fiber that is parked for ever does not make the process busy.
  auto parked = runtime.root().spawn([] { static_cast<void>(test::park_until_interrupted()); });
  const auto wait_ms = [](int ms) { static_cast<void>(poll(nullptr, 0, ms)); };
  Metrics before = runtime.metrics();
  for (int looks = 0; looks < 100; ++looks) {
    wait_ms(50);
    const Metrics now = runtime.metrics();
    const bool settled = now.sleeps == before.sleeps && now.switches == before.switches;
    before = now;
    if (settled) break;
  }
  const std::uint64_t kernel_sleeps_before = kernel_sleeps();
  wait_ms(soak() ? 30'000 : 1'100);
  CHECK(kernel_sleeps() == kernel_sleeps_before);
  const Metrics after = runtime.metrics();
  CHECK(after.sleeps == before.sleeps);
  CHECK(after.kernel_entries == before.kernel_entries);
  CHECK(after.switches == before.switches);
  CHECK(after.fibers == 1);
  parked.cancel();
  CHECK(parked.wait().ok());
  CHECK(runtime.stop().ok());
}
