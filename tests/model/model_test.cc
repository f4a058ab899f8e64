// The controlled scheduler tested on small programs whose bugs are known.
#include <cstdint>
#include <string>

#include <catch2/catch.hpp>

#include "runtime/base/atomic.h"
#include "runtime/base/check.h"
#include "tests/model/blocking.h"
#include "tests/model/explore.h"

namespace weft::model {
namespace {

constexpr auto kRelaxed =
    std::memory_order_relaxed;  // the explorer is sequentially consistent anyway

Options options(const char* name, Strategy strategy = Strategy::kRandom, int depth = 3) {
  Options options{.name = name};
  options.strategy = strategy;
  options.depth = depth;
  return options;
}

// Two threads increment by a load and a store.
void lost_update(Schedule& schedule) {
  base::Atomic<int> counter{0};
  schedule.name(counter, "counter");
  for (const char* name : {"first", "second"}) {
    schedule.add(name, [&] { counter.store(counter.load(kRelaxed) + 1, kRelaxed); });
  }
  schedule.run();
  check(counter.load(kRelaxed) == 2, "an increment was lost");
}

TEST_CASE("model: a lost update is found by every strategy", "[model]") {
  REQUIRE(explore(options("lost/random"), lost_update).message == "an increment was lost");
  REQUIRE(explore(options("lost/pct", Strategy::kPct, 2), lost_update).message ==
          "an increment was lost");
  REQUIRE(explore(options("lost/bounded", Strategy::kBounded, 1), lost_update).message ==
          "an increment was lost");
}

TEST_CASE("model: an atomic increment loses nothing, in all schedules with two preemptions",
          "[model]") {
  const Result result =
      explore(options("increment", Strategy::kBounded, 2), [](Schedule& schedule) {
        base::Atomic<int> counter{0};
        for (const char* name : {"first", "second", "third"}) {
          schedule.add(name, [&] {
            for (int i = 0; i < 3; ++i) counter.fetch_add(1, kRelaxed);
          });
        }
        schedule.run();
        check(counter.load(kRelaxed) == 9, "an increment was lost");
      });
  REQUIRE(result.message == "");
  REQUIRE(result.complete);
  REQUIRE(result.schedules > 100);
}

TEST_CASE("model: a preemption less than a bug needs does not find it", "[model]") {
  const Result result = explore(options("lost/none", Strategy::kBounded, 0), lost_update);
  REQUIRE(result.message == "");
  REQUIRE(result.complete);
  REQUIRE(result.schedules == 2);  // one thread first, or the other
}

// The bug needs the writer to stop between its two stores, the reader to stop between its loads,
// and the writer to go on: three ordered events.
void deep_bug(Schedule& schedule) {
  base::Atomic<int> a{0};
  base::Atomic<int> b{0};
  schedule.add("writer", [&] {
    a.store(1, kRelaxed);
    b.store(1, kRelaxed);
    a.store(2, kRelaxed);
  });
  schedule.add("reader", [&] {
    const bool between = a.load(kRelaxed) == 1 && b.load(kRelaxed) == 0;
    check(!between || b.load(kRelaxed) != 1 || a.load(kRelaxed) != 1, "three events in order");
  });
  schedule.run();
}

TEST_CASE("model: PCT finds a bug at its depth, and not below it", "[model]") {
  REQUIRE(explore(options("deep/1", Strategy::kPct, 1), deep_bug).message == "");
  REQUIRE(explore(options("deep/2", Strategy::kPct, 2), deep_bug).message == "");
  REQUIRE(explore(options("deep/4", Strategy::kPct, 4), deep_bug).message ==
          "three events in order");
}

TEST_CASE("model: a failed schedule gives the same trace whenever it is run", "[model]") {
  const Result first = explore(options("same"), lost_update);
  const Result again = explore(options("same"), lost_update);
  REQUIRE(first.schedule == again.schedule);
  REQUIRE(first.trace == again.trace);
  REQUIRE(first.trace.find("counter") != std::string::npos);
  REQUIRE(first.trace.find("second") != std::string::npos);
  REQUIRE(first.replay.find("WEFT_REPLAY=same:" + std::to_string(first.schedule)) !=
          std::string::npos);

  // What the printed command does, in this process.
  const std::string selected = "same:" + std::to_string(first.schedule);
  setenv("WEFT_REPLAY", selected.c_str(), 1);
  const Result replayed = explore(options("same"), lost_update);
  const Result other = explore(options("another"), lost_update);
  unsetenv("WEFT_REPLAY");
  REQUIRE(replayed.message == first.message);
  REQUIRE(replayed.trace == first.trace);
  REQUIRE(other.schedules == 0);
}

TEST_CASE("model: a deadlock is found and names who waits for what", "[model]") {
  const Result result = explore(options("deadlock"), [](Schedule& schedule) {
    Semaphore fork(1);
    Semaphore knife(1);
    schedule.add("left", [&] { fork.wait(), knife.wait(), knife.post(), fork.post(); });
    schedule.add("right", [&] { knife.wait(), fork.wait(), fork.post(), knife.post(); });
    schedule.run();
  });
  REQUIRE(result.message == "deadlock: left waits for a semaphore, right waits for a semaphore");
}

// A sleeper that announces itself and looks again, or one that forgets to look.
enum class Recheck : std::uint8_t { kYes, kNo };

void sleep_protocol(Schedule& schedule, Recheck recheck) {
  base::Atomic<int> work{0};
  base::Atomic<int> asleep{0};
  Event doorbell;
  schedule.add("worker", [&] {
    while (work.load(kRelaxed) == 0) {
      asleep.store(1, kRelaxed);
      if (recheck == Recheck::kNo || work.load(kRelaxed) == 0) doorbell.wait();
      asleep.store(0, kRelaxed);
    }
  });
  schedule.add("producer", [&] {
    work.store(1, kRelaxed);
    if (asleep.load(kRelaxed) == 1) doorbell.post();
  });
  schedule.run();
}

TEST_CASE("model: a lost wake-up is a deadlock", "[model]") {
  for (const Strategy strategy : {Strategy::kRandom, Strategy::kPct, Strategy::kBounded}) {
    REQUIRE(explore(options("wakeup/lost", strategy), [](Schedule& schedule) {
              sleep_protocol(schedule, Recheck::kNo);
            }).message == "deadlock: worker waits for an event");
    REQUIRE(explore(options("wakeup", strategy), [](Schedule& schedule) {
              sleep_protocol(schedule, Recheck::kYes);
            }).message == "");
  }
}

TEST_CASE("model: a thread that spins does not keep the others from running", "[model]") {
  for (const Strategy strategy : {Strategy::kRandom, Strategy::kPct, Strategy::kBounded}) {
    const Result result = explore(options("spin", strategy), [](Schedule& schedule) {
      base::Atomic<int> turn{0};
      for (int i = 0; i < 3; ++i) {
        schedule.add("spinner", [&, i] {
          while (turn.load(kRelaxed) != i) base::spin_hint();
          turn.store(i + 1, kRelaxed);
        });
      }
      schedule.run();
    });
    REQUIRE(result.message == "");
  }
}

TEST_CASE("model: waiting for what never comes is a livelock", "[model]") {
  const Result result = explore(options("livelock"), [](Schedule& schedule) {
    base::Atomic<int> flag{0};
    schedule.add("waiter", [&] {
      while (flag.load(kRelaxed) == 0) base::spin_hint();
    });
    schedule.run();
  });
  REQUIRE(result.message == "too many steps: a livelock?");
}

TEST_CASE("model: what is retired must not be touched", "[model]") {
  const Result result = explore(options("retired"), [](Schedule& schedule) {
    base::Atomic<int> done{0};
    schedule.add("waker", [&] {
      done.store(1, kRelaxed);
      done.load(kRelaxed);  // too late: the waiter may be gone
    });
    schedule.add("waiter", [&] {
      block_until([&] { return done.load(kRelaxed) == 1; });
      retire(done, "touched after its owner had gone");
    });
    schedule.run();
  });
  REQUIRE(result.message == "touched after its owner had gone");
}

TEST_CASE("model: what block_until waited for holds when it returns", "[model]") {
  const Result result = explore(options("block"), [](Schedule& schedule) {
    int tokens = 0;
    for (const char* name : {"first", "second"}) {
      schedule.add(name, [&] {
        block_until([&] { return tokens > 0; });
        check(tokens-- > 0, "another one was faster");
      });
    }
    schedule.add("giver", [&] {
      for (int i = 0; i < 2; ++i) {
        block_until([&] { return tokens == 0; });
        ++tokens;
      }
    });
    schedule.run();
  });
  REQUIRE(result.message == "");
}

TEST_CASE("model: a failed WEFT_CHECK in the code fails the schedule", "[model]") {
  const Result result = explore(options("check"), [](Schedule& schedule) {
    schedule.add("thread", [] { WEFT_CHECK(1 + 1 == 3, "sums"); });
    schedule.run();
  });
  REQUIRE(result.message.find("sums (1 + 1 == 3)") != std::string::npos);
}

TEST_CASE("model: at rest one thread looks at the others, and ends them", "[model]") {
  const Result result = explore(options("quiet"), [](Schedule& schedule) {
    Event doorbell;
    base::Atomic<int> asleep{0};
    bool stop = false;
    schedule.add("sleeper", [&] {
      while (!stop) {
        asleep.store(1, kRelaxed);
        doorbell.wait();
        asleep.store(0, kRelaxed);
      }
    });
    schedule.add("observer", [&] {
      wait_until_quiet();
      check(asleep.load(kRelaxed) == 1, "at rest, and awake");
      stop = true;
      doorbell.post();
    });
    schedule.run();
  });
  REQUIRE(result.message == "");
}

TEST_CASE("model: a choice is explored both ways", "[model]") {
  for (const Strategy strategy : {Strategy::kRandom, Strategy::kPct, Strategy::kBounded}) {
    int seen[3] = {};
    explore(options("choice", strategy), [&](Schedule& schedule) {
      schedule.add("thread", [&] { ++seen[choose(3)]; });
      schedule.run();
    });
    REQUIRE((seen[0] > 0 && seen[1] > 0 && seen[2] > 0));
  }
}

TEST_CASE("model: a weak compare-exchange may fail for no reason", "[model]") {
  const Result result = explore(options("weak"), [](Schedule& schedule) {
    base::Atomic<int> word{0};
    schedule.add("thread", [&] {
      int expected = 0;
      check(word.compare_exchange_weak(expected, 1, kRelaxed, kRelaxed), "failed for no reason");
    });
    schedule.run();
  });
  REQUIRE(result.message == "failed for no reason");
}

}  // namespace
}  // namespace weft::model
