// Parking and waking in great numbers: pairs of fibers with and without a deadline, threads that are no
// workers, and single wakes of an idle runtime. What is lost here hangs, and the watchdog tells.

#include <weft/fiber.h>
#include <weft/runtime.h>
#include <weft/scope.h>
#include <weft/time.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <thread>
#include <vector>

#include <sched.h>

#include <catch2/catch.hpp>

#include "runtime/sched/core.h"
#include "tests/support/baton.h"
#include "tests/support/on_fiber.h"
#include "tests/support/random.h"
#include "tests/support/sanitizer.h"
#include "tests/support/watchdog.h"

using namespace weft;

namespace {

constexpr bool kSanitized = test::kAddressSanitizer || test::kThreadSanitizer;

bool soak() { return std::getenv("WEFT_SOAK") != nullptr; }
std::uint64_t times(std::uint64_t bounded, std::uint64_t long_run) {
  return soak() && !kSanitized ? long_run : kSanitized ? bounded / 10 : bounded;
}

std::unique_ptr<Runtime> started(int workers) {
  auto runtime = Runtime::start({.workers = workers, .handle_signals = false});
  REQUIRE(runtime.ok());
  return *std::move(runtime);
}

// A fiber that is given a baton again and again by somebody who waits for each answer.
struct Taker {
  test::Baton baton;
  std::atomic<std::uint64_t> taken{0};
  std::uint64_t passed = 0;  // the passer's

  bool answered() const { return taken.load(std::memory_order_acquire) == passed; }
  void pass() {
    ++passed;
    baton.pass();
  }
};

}  // namespace

// Every second wait has a deadline, of a few microseconds, so that it is over at about the time of the wake:
// whichever claims the fiber first, the baton is taken once.
TEST_CASE("park: none of the wakes is lost, with a deadline or without", "[park][C3]") {
  const int workers = GENERATE(1, 2, 4);
  const int pairs = GENERATE(1, 2, 3, 4);
  const std::uint64_t each = times(10'000, 300'000);
  const std::uint64_t seed = test::seed();
  std::atomic<std::uint64_t> taken{0};
  std::atomic<std::uint64_t> expired{0};
  auto runtime = started(workers);
  {
    test::Watchdog watchdog(*sched::core_of(*runtime), [&] { return taken + expired; });
    CHECK(runtime
              ->block_on([&] {
                std::deque<test::Baton> there(static_cast<std::size_t>(pairs));
                std::deque<test::Baton> back(static_cast<std::size_t>(pairs));
                Scope scope;
                for (std::size_t pair = 0; pair < there.size(); ++pair) {
                  scope.spawn([&, pair] {
                    test::Random random(seed + pair);
                    for (std::uint64_t i = 0; i < each; ++i) {
                      bool mine = false;
                      if (i % 2 == 0) {
                        Timeout timeout(absl::Microseconds(random.below(20)));
                        mine = there[pair].take_unless_cancelled();
                        expired += mine ? 0 : 1;
                      }
                      if (!mine) there[pair].take();
                      ++taken;
                      back[pair].pass();
                    }
                  });
                  scope.spawn([&, pair] {
                    test::Random random(~seed + pair);
                    for (std::uint64_t i = 0; i < each; ++i) {
                      for (std::uint64_t turns = random.below(4); turns > 0; --turns) {
                        this_fiber::yield();
                      }
                      if (random.one_in(32)) {
                        sleep_for(absl::Microseconds(random.below(20))).IgnoreError();
                      }
                      there[pair].pass();
                      back[pair].take();
                    }
                  });
                }
                return scope.join();
              })
              .ok());
  }
  std::printf("workers=%d pairs=%d taken=%llu expired=%llu\n", workers, pairs,
              static_cast<unsigned long long>(taken), static_cast<unsigned long long>(expired));
  CHECK(taken == each * static_cast<std::uint64_t>(pairs));
  CHECK(runtime->stop().ok());
}

TEST_CASE("park: threads that are no workers wake fibers, and none is lost", "[park][C4]") {
  const int workers = GENERATE(1, 2);
  constexpr int kThreads = 2;
  constexpr std::size_t kTakers = 32;  // of each thread
  const std::uint64_t each = times(50'000, 2'500'000) / kTakers;
  std::vector<std::deque<Taker>> takers(kThreads);
  std::atomic<std::uint64_t> wakes{0};
  auto runtime = started(workers);
  {
    test::Watchdog watchdog(*sched::core_of(*runtime), [&] { return wakes.load(); });
    FiberGroup group(*runtime);
    for (auto& mine : takers) {
      mine.resize(kTakers);
      for (Taker& taker : mine) {
        group.spawn([&] {
          for (std::uint64_t i = 0; i < each; ++i) {
            taker.baton.take();
            // release: what the fiber did is seen by who waits for the answer
            taker.taken.fetch_add(1, std::memory_order_release);
          }
        });
      }
    }
    std::vector<std::thread> threads;
    for (auto& mine : takers) {
      threads.emplace_back([&] {
        for (std::uint64_t i = 0; i < each; ++i) {
          for (Taker& taker : mine) {
            while (!taker.answered()) sched_yield();
            taker.pass();
            ++wakes;
          }
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(group.join().ok());
  }
  for (auto& mine : takers) {
    for (Taker& taker : mine) CHECK(taker.taken == each);
  }
  CHECK(wakes == each * kTakers * kThreads);
  CHECK(runtime->stop().ok());
}

// The runtime is asleep as a whole before each wake, and nothing else would ever end that sleep.
TEST_CASE("park: a single wake of an idle runtime is followed by one run", "[park][C5]") {
  const int workers = GENERATE(1, 2, 4);
  const std::uint64_t wakes = times(3'000, 35'000);
  Taker taker;
  auto runtime = started(workers);
  sched::Core& core = *sched::core_of(*runtime);
  {
    test::Watchdog watchdog(core, [&] { return taker.taken.load(); });
    auto fiber = runtime->root().spawn([&] {
      for (std::uint64_t i = 0; i < wakes; ++i) {
        taker.baton.take();
        taker.taken.fetch_add(1, std::memory_order_release);
      }
    });
    for (std::uint64_t i = 0; i < wakes; ++i) {
      while (core.idle().sleepers() != static_cast<unsigned>(workers)) sched_yield();
      const std::uint64_t switches = runtime->metrics().switches;
      taker.pass();
      while (!taker.answered()) sched_yield();
      // With chaos a fiber may also yield after its wait.
      const bool once = sched::kChaos || runtime->metrics().switches == switches + 1;
      if (!once) FAIL("wake " << i << " was followed by another number of runs than one");
    }
    CHECK(fiber.wait().ok());
  }
  CHECK(taker.taken == wakes);
  CHECK(runtime->stop().ok());
}
