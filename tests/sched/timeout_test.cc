// Sleeping, deadlines and Timeout: never early, the nearest wins, and restart moves it.

#include <weft/fiber.h>
#include <weft/runtime.h>
#include <weft/scope.h>
#include <weft/time.h>

#include <atomic>
#include <chrono>
#include <vector>

#include <catch2/catch.hpp>

#include "tests/support/on_fiber.h"
#include "tests/support/random.h"

using namespace weft;
using test::on_fiber;
using test::park_until_interrupted;
using test::yield_until;

namespace {

using Clock = std::chrono::steady_clock;

std::int64_t nanoseconds_since(Clock::time_point began) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - began).count();
}

}  // namespace

TEST_CASE("sleep: never early, whatever its length and the slack", "[time]") {
  const int workers = GENERATE(1, 2, 4);
  const auto slack = GENERATE(absl::ZeroDuration(), absl::Milliseconds(1));
  std::atomic<int> slept{0};
  std::atomic<int> early{0};
  on_fiber({.workers = workers, .timer_slack = slack}, [&] {
    Scope scope;
    for (int i = 0; i < 200; ++i) {
      scope.spawn([&, i] {
        const std::int64_t wanted = 1 + 97 * i * i;  // 1 ns to 4 ms
        const auto began = Clock::now();
        const bool ok = sleep_for(absl::Nanoseconds(wanted)).ok();
        early += nanoseconds_since(began) < wanted ? 1 : 0;
        slept += ok ? 1 : 0;
        const Deadline deadline = Deadline::in(absl::Nanoseconds(wanted));
        slept += sleep_until(deadline).ok() ? 1 : 0;
        early += deadline.remaining() > absl::ZeroDuration() ? 1 : 0;
      });
    }
    static_cast<void>(scope.join());
  });
  CHECK(slept == 400);
  CHECK(early == 0);
}

TEST_CASE("sleep: a deadline that is over lets others run and returns OK", "[time]") {
  bool other_ran = false;
  absl::Status slept;
  absl::Status negative;
  on_fiber({.workers = 1}, [&] {
    Scope scope;
    scope.spawn([&] { other_ran = true; });
    slept = sleep_until(Deadline::in(-absl::Seconds(1)));
    negative = sleep_for(-absl::InfiniteDuration());
    static_cast<void>(scope.join());
  });
  CHECK(slept.ok());
  CHECK(negative.ok());
  CHECK(other_ran);
}

TEST_CASE("deadline: saturates, compares, and converts the wall clock", "[time]") {
  CHECK(Deadline() == Deadline::in(absl::InfiniteDuration()));
  CHECK(Deadline().remaining() == absl::InfiniteDuration());
  CHECK(Deadline::in(absl::Seconds(1)) < Deadline::in(absl::Hours(1)));
  CHECK(Deadline::in(absl::Hours(24 * 365 * 1000)) == Deadline());
  CHECK(Deadline::in(-absl::InfiniteDuration()).remaining() == absl::ZeroDuration());
  CHECK(Deadline::at(absl::InfiniteFuture()) == Deadline());
  const absl::Duration left = Deadline::at(absl::Now() + absl::Hours(1)).remaining();
  CHECK(left <= absl::Hours(1));
  CHECK(left > absl::Minutes(30));
}

TEST_CASE("timeout: ends every wait from its deadline on, and none after it", "[time]") {
  const int workers = GENERATE(1, 2, 4);
  int exceeded = 0;
  bool expired = false;
  absl::StatusCode join_of_fiber = absl::StatusCode::kOk;
  absl::StatusCode outside = absl::StatusCode::kUnknown;
  on_fiber({.workers = workers}, [&] {
    std::atomic<bool> go{false};
    Scope scope;
    auto slow = scope.spawn([&] { yield_until([&] { return go.load(); }); });
    {
      Timeout timeout(absl::Milliseconds(2));
      for (int i = 0; i < 20; ++i) {
        exceeded += park_until_interrupted() == absl::StatusCode::kDeadlineExceeded ? 1 : 0;
      }
      join_of_fiber = slow.join().code();
      expired = timeout.expired();
    }
    outside = sleep_for(absl::Microseconds(1)).code();
    go = true;
    static_cast<void>(scope.join());
  });
  CHECK(exceeded == 20);
  CHECK(expired);
  CHECK(join_of_fiber == absl::StatusCode::kDeadlineExceeded);
  CHECK(outside == absl::StatusCode::kOk);
}

TEST_CASE("timeout: the nearest wins, and expired() tells which it was", "[time]") {
  struct Outcome {
    absl::StatusCode code = absl::StatusCode::kOk;
    bool outer = false;
    bool inner = false;
  };
  Outcome inner_first;
  Outcome outer_first;
  absl::StatusCode after_inner = absl::StatusCode::kUnknown;
  absl::StatusCode after_inner_of_outer = absl::StatusCode::kUnknown;
  on_fiber({.workers = 2}, [&] {
    {
      Timeout outer(absl::Hours(1));
      {
        Timeout inner(absl::Milliseconds(2));
        inner_first = {park_until_interrupted(), outer.expired(), inner.expired()};
      }
      after_inner = sleep_for(absl::Microseconds(1)).code();
    }
    Timeout outer(absl::Milliseconds(2));
    {
      Timeout inner(absl::Hours(1));
      outer_first = {park_until_interrupted(), outer.expired(), inner.expired()};
    }
    after_inner_of_outer = sleep_for(absl::Microseconds(1)).code();
  });
  CHECK(inner_first.code == absl::StatusCode::kDeadlineExceeded);
  CHECK(inner_first.inner);
  CHECK_FALSE(inner_first.outer);
  CHECK(after_inner == absl::StatusCode::kOk);
  CHECK(outer_first.code == absl::StatusCode::kDeadlineExceeded);
  CHECK(outer_first.outer);
  CHECK_FALSE(outer_first.inner);
  CHECK(after_inner_of_outer == absl::StatusCode::kDeadlineExceeded);
}

TEST_CASE("timeout: restart moves the deadline to later and to earlier", "[time]") {
  const int workers = GENERATE(1, 2, 4);
  absl::StatusCode later = absl::StatusCode::kUnknown;
  absl::StatusCode earlier = absl::StatusCode::kOk;
  bool early = false;
  absl::StatusCode kept_alive = absl::StatusCode::kUnknown;
  on_fiber({.workers = workers}, [&] {
    {
      Timeout timeout(absl::Milliseconds(20));
      timeout.restart(absl::Hours(1));
      later = sleep_for(absl::Milliseconds(30)).code();
    }
    {
      Timeout timeout(absl::Hours(1));
      const auto began = Clock::now();
      timeout.restart(absl::Milliseconds(2));
      earlier = park_until_interrupted();
      early = nanoseconds_since(began) < 2'000'000;
    }
    Timeout idle(absl::Hours(1));
    for (int i = 0; i < 1000; ++i) {
      idle.restart(absl::Hours(1));
      kept_alive = this_fiber::checkpoint().code();
    }
  });
  CHECK(later == absl::StatusCode::kOk);
  CHECK(earlier == absl::StatusCode::kDeadlineExceeded);
  CHECK_FALSE(early);
  CHECK(kept_alive == absl::StatusCode::kOk);
}

TEST_CASE("timeout: restart lifts an expiry that no wait has reported, and no other", "[time]") {
  absl::StatusCode lifted = absl::StatusCode::kUnknown;
  absl::StatusCode after_sleep = absl::StatusCode::kOk;
  absl::StatusCode after_checkpoint = absl::StatusCode::kOk;
  absl::StatusCode after_group = absl::StatusCode::kOk;
  absl::StatusCode after_scope = absl::StatusCode::kOk;
  on_fiber({.workers = 2}, [&] {
    {
      Timeout timeout(absl::Milliseconds(1));
      yield_until([] { return this_fiber::cancelled(); });
      timeout.restart(absl::Hours(1));
      lifted = sleep_for(absl::Microseconds(1)).code();
    }
    {
      Timeout timeout(absl::Milliseconds(1));
      static_cast<void>(park_until_interrupted());
      timeout.restart(absl::Hours(1));
      after_sleep = sleep_for(absl::Microseconds(1)).code();
    }
    {
      Timeout timeout(absl::Milliseconds(1));
      yield_until([] { return this_fiber::cancelled(); });
      static_cast<void>(this_fiber::checkpoint());
      timeout.restart(absl::Hours(1));
      after_checkpoint = sleep_for(absl::Microseconds(1)).code();
    }
    {
      FiberGroup group;
      group.spawn([] { static_cast<void>(park_until_interrupted()); });
      Timeout timeout(absl::Milliseconds(1));
      static_cast<void>(group.join());
      timeout.restart(absl::Hours(1));
      after_group = sleep_for(absl::Microseconds(1)).code();
    }
    Timeout timeout(absl::Milliseconds(1));
    {
      Scope scope;
      scope.spawn([] { static_cast<void>(park_until_interrupted()); });
      static_cast<void>(scope.join());
    }
    timeout.restart(absl::Hours(1));
    after_scope = sleep_for(absl::Microseconds(1)).code();
  });
  CHECK(lifted == absl::StatusCode::kOk);
  CHECK(after_sleep == absl::StatusCode::kDeadlineExceeded);
  CHECK(after_checkpoint == absl::StatusCode::kDeadlineExceeded);
  CHECK(after_group == absl::StatusCode::kDeadlineExceeded);
  CHECK(after_scope == absl::StatusCode::kDeadlineExceeded);
}

TEST_CASE("timeout: does not bound fibers that are spawned while it lives", "[time]") {
  absl::StatusCode child = absl::StatusCode::kUnknown;
  on_fiber({.workers = 2}, [&] {
    std::atomic<bool> expired{false};
    Scope scope;
    {
      Timeout timeout(absl::Milliseconds(1));
      scope.spawn([&] {
        yield_until([&] { return expired.load(); });
        child = sleep_for(absl::Microseconds(1)).code();
      });
      static_cast<void>(park_until_interrupted());
      expired = true;
    }
    static_cast<void>(scope.join());
  });
  CHECK(child == absl::StatusCode::kOk);
}

TEST_CASE("timeout: expiring, restarting and leaving at any moment leave nothing behind",
          "[time]") {
  const int workers = GENERATE(1, 2, 4);
  const std::uint64_t seed = test::seed();
  std::atomic<int> leaked{0};
  std::atomic<int> done{0};
  on_fiber({.workers = workers, .timer_slack = absl::ZeroDuration()}, [&] {
    Scope scope;
    for (std::uint64_t i = 0; i < 8; ++i) {
      scope.spawn([&, i] {
        test::Random random(seed + i);
        for (int round = 0; round < 200; ++round) {
          {
            Timeout outer(absl::Microseconds(random.below(200)));
            Timeout inner(absl::Microseconds(random.below(200)));
            for (std::uint64_t steps = random.below(4); steps > 0; --steps) {
              switch (random.below(4)) {
                case 0:
                  inner.restart(absl::Microseconds(random.below(300)));
                  break;
                case 1:
                  static_cast<void>(sleep_for(absl::Microseconds(random.below(100))));
                  break;
                default:
                  this_fiber::yield();
              }
            }
          }
          leaked += sleep_for(absl::Nanoseconds(1)).ok() ? 0 : 1;
        }
        ++done;
      });
    }
    static_cast<void>(scope.join());
  });
  CHECK(done == 8);
  CHECK(leaked == 0);
}
