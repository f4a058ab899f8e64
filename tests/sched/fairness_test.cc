// Nobody starves: a pair that keeps waking each other, fibers that spawn, and fibers that yield. Judged in
// turns, never by the clock.

#include <weft/fiber.h>
#include <weft/runtime.h>
#include <weft/scope.h>
#include <weft/time.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <functional>
#include <map>
#include <utility>
#include <vector>

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

}  // namespace

TEST_CASE("scheduler: a pair that wakes each other leaves room for bystanders", "[scheduler][C7]") {
  constexpr int kBystanders = 100;
  constexpr int kHandOvers = 200'000;
  // The pair may go first 32 times in a row; then one of the others has its turn.
  constexpr long kPairTurnsMax = 64;
  std::atomic<long> hand_overs{0};
  std::vector<long> gaps(kBystanders, 0);
  std::vector<long> runs(kBystanders, 0);
  std::atomic<long> longest_run{0};
  on_fiber({.workers = 1}, [&] {
    test::Baton ping;
    test::Baton pong;
    std::atomic<bool> over{false};
    std::atomic<long> since_bystander{0};
    Scope scope;
    for (std::size_t i = 0; i < kBystanders; ++i) {
      scope.spawn([&, i] {
        long last = hand_overs;
        while (!over) {
          const long now = hand_overs;
          gaps[i] = std::max(gaps[i], now - last);
          last = now;
          ++runs[i];
          since_bystander = 0;
          this_fiber::yield();
        }
      });
    }
    scope.spawn([&] {
      for (int i = 0; i < kHandOvers; ++i) {
        ping.take();
        pong.pass();
      }
    });
    scope.spawn([&] {
      for (int i = 0; i < kHandOvers; ++i) {
        ++hand_overs;
        longest_run = std::max(longest_run.load(), ++since_bystander);
        ping.pass();
        pong.take();
      }
      over = true;
    });
    static_cast<void>(scope.join());
  });
  CHECK(hand_overs == kHandOvers);
  CHECK(longest_run <= kPairTurnsMax);
  CHECK(*std::max_element(gaps.begin(), gaps.end()) <= kPairTurnsMax * kBystanders);
  CHECK(*std::min_element(runs.begin(), runs.end()) > kHandOvers / (kPairTurnsMax * kBystanders));
}

// Each link of a chain spawns its successor, yields once and ends. A scheduler that starts more fibers than
// it resumes has more and more of them alive, and each yield takes longer than the one before.
TEST_CASE("scheduler: fibers that spawn do not outrun those that are ready", "[scheduler][C7]") {
  constexpr int kChains = 20;
  constexpr int kLinks = 40'000;
  std::atomic<int> spawned{0};
  std::atomic<int> started{0};
  std::atomic<int> ended{0};
  std::atomic<int> most{0};
  on_fiber({.workers = 1}, [&] {
    Scope scope;
    std::function<void()> link = [&] {
      ++started;
      if (++spawned <= kLinks) scope.spawn([&] { link(); });
      this_fiber::yield();
      most = std::max<int>(most, started - ended);
      ++ended;
    };
    for (int i = 0; i < kChains; ++i) scope.spawn([&] { link(); });
    static_cast<void>(scope.join());
  });
  CHECK(started == ended);
  CHECK(most <= 3 * kChains);
}

TEST_CASE("scheduler: a lone fiber that yields does not keep timers from firing",
          "[scheduler][C7]") {
  bool woken = false;
  on_fiber({.workers = 1}, [&] {
    std::atomic<bool> over{false};
    Scope scope;
    scope.spawn([&] {
      woken = sleep_for(absl::Milliseconds(1)).ok();
      over = true;
    });
    test::yield_until([&] { return over.load(); });
    static_cast<void>(scope.join());
  });
  CHECK(woken);
}

TEST_CASE("scheduler: fibers that only yield have equal shares of their worker",
          "[scheduler][C8]") {
  const int workers = GENERATE(1, 2, 4);
  constexpr int kFibers = 1000;
  const std::uint64_t turns_each = soak() ? 5'000 : 200;
  struct Share {
    std::uint64_t turns = 0;
    long home = 0;
    bool moved = false;
  };
  std::vector<Share> shares(kFibers);
  on_fiber({.workers = workers}, [&] {
    std::atomic<int> begun{0};
    std::atomic<int> served{0};
    sched::Core& core = sched::Core::of(*sched::current_fiber());
    test::Watchdog watchdog(core, [&] { return static_cast<std::uint64_t>(begun + served); });
    Scope scope;
    for (Share& mine : shares) {
      scope.spawn([&] {
        ++begun;
        test::yield_until([&] { return begun == kFibers; });
        mine.home = test::kernel_thread();
        while (served != kFibers) {
          this_fiber::yield();
          mine.moved |= test::kernel_thread() != mine.home;
          if (++mine.turns == turns_each) ++served;
        }
      });
    }
    static_cast<void>(scope.join());
  });
  std::map<long, std::pair<std::uint64_t, std::uint64_t>> extremes;  // by worker: fewest, most
  int stayed = 0;
  for (const Share& share : shares) {
    if (share.moved) continue;  // it has had turns on two workers, which are not equally fast
    ++stayed;
    auto& [fewest, most] = extremes.try_emplace(share.home, share.turns, share.turns).first->second;
    fewest = std::min(fewest, share.turns);
    most = std::max(most, share.turns);
  }
  CHECK(stayed > 0);
  for (const auto& [home, turns] : extremes) CHECK(2 * turns.second <= 3 * turns.first);
}
