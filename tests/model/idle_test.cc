// Sleeping, ringing and watching: Idle as it ships, over workers whose queues are counters. At rest no
// work is left while a worker sleeps, nor behind one that runs for ever, nor a timer that is due; an idle
// process has no timed sleeper; and whoever stops the runtime is heard by everybody.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include <catch2/catch.hpp>

#include "runtime/base/plant.h"
#include "tests/model/blocking.h"
#include "tests/model/explore.h"
#include "tests/model/idle_workers.h"

namespace weft::model {

Runtime::Runtime(Schedule& schedule, const Limits& limits)
    : limits_(limits), idle_(limits.workers) {
  static constexpr std::array kWorkers = {"worker 0", "worker 1", "worker 2"};
  static constexpr std::array kProducers = {"producer 0", "producer 1"};
  for (int i = 0; i < limits.workers; ++i) {
    worker(i).start(*this, i);
    schedule.name(worker(i), kWorkers[static_cast<std::size_t>(i)]);
    schedule.add(kWorkers[static_cast<std::size_t>(i)], [this, i] { worker(i).main(); });
  }
  schedule.name(injection, "injection");
  schedule.name(stopping, "stopping");
  for (std::size_t i = 0; i < kProducers.size(); ++i) {
    if (limits.producers[i].empty()) continue;
    schedule.add(kProducers[i], [this, i] { produce(limits_.producers[i]); });
  }
  schedule.add("clock", [this] { pass_time(); });
  schedule.add("stopper", [this] {
    if (!limits_.early_stop) {
      wait_until_quiet();
      look_at_rest();
    }
    stop();
  });
}

void Runtime::produce(std::string_view actions) {
  for (const char action : actions) {
    const int target = action == '0' ? 0 : 1;
    if (action == 'i') {
      injection.fetch_add(1, kSeqCst);
      idle_.rung(worker(0));
    } else {
      Count& inbox = action == 'n' ? worker(target).notes : worker(target).inbox;
      inbox.fetch_add(1, kSeqCst);
      idle_.reach(worker(0), target);
    }
  }
}

void Runtime::pass_time() {
  while (true) {
    const auto armed = [this] {
      for (int i = 0; i < limits_.workers; ++i) {
        if (worker(i).armed()) return true;
      }
      return false;
    };
    block_until([&] { return armed() || stopping.load(kRelaxed); });
    if (stopping.load(kRelaxed)) return;
    for (int i = 0; i < limits_.workers; ++i) worker(i).pass_time();
  }
}

void Runtime::look_at_rest() {
  int asleep = 0;
  int timed = 0;
  bool work = injection.load(kRelaxed) != 0;
  for (int i = 0; i < limits_.workers; ++i) {
    const ModelWorker& one = worker(i);
    check(one.asleep() != one.stuck(), "at rest a worker is neither asleep nor stuck");
    asleep += one.asleep() ? 1 : 0;
    timed += one.timed() ? 1 : 0;
    work = work || one.stranded() ||
           (one.asleep() && one.inbox.load(kRelaxed) + one.notes.load(kRelaxed) != 0);
  }
  check(asleep == 0 || !work, "work is left while a worker sleeps");
  check(idle_.sleepers() == static_cast<unsigned>(asleep), "the sleepers are miscounted");
  check(idle_.busy() == static_cast<unsigned>(limits_.workers - asleep), "the busy are miscounted");
  check(timed <= 1 && idle_.has_watcher() == (timed == 1), "the watcher's token is lost");
  check(timed == 0 || asleep != limits_.workers, "an idle process has a timed sleeper");
}

void Runtime::stop() {
  stopping.store(true, kSeqCst);
  idle_.ring_all(worker(0));
  block_until([this] { return stopped == limits_.workers; });
}

namespace {

constexpr std::array kCases = {
    Limits{"watch", 2, 1, false, {"0", "n"}, "t!"},
    Limits{"stop", 2, 1, true, {"i", ""}, "??"},
    Limits{"watcher", 2, 1, false, {"01", ""}, ".t!"},
    Limits{"1 worker", 1, 0, false, {"ii", "i0"}, "??"},
    Limits{"2 workers", 2, 1, false, {"ii", ""}, "???"},
    Limits{"messages", 2, 1, false, {"00", "i"}, "??"},
    Limits{"3 workers", 3, 2, false, {"ii", ""}, "????"},
};

// All cases, with `schedules` schedules together. Returns the exploration that failed, or the last; the
// number of schedules is that of all of them.
Result explore_cases(std::uint64_t schedules) {
  Result result;
  std::uint64_t total = 0;
  for (const Limits& limits : kCases) {
    result = explore_all(std::string("idle/") + limits.name, schedules / kCases.size(),
                         [&](Schedule& schedule) {
                           Runtime runtime(schedule, limits);
                           schedule.run();
                         });
    total += result.schedules;
    if (!result.message.empty()) break;
  }
  result.schedules = total;
  return result;
}

#ifndef WEFT_PLANT

TEST_CASE("idle: no work is left while a worker sleeps, and all hear a stop",
          "[sleep][watch][B4]") {
  REQUIRE(explore_cases(350'000).message == "");
}

// What B4 asks for by number, in soak: ten million schedules of each strategy, half of them for one worker
// with two producers and half for two workers with one.
TEST_CASE("idle: one worker and two producers, two workers and one", "[sleep][B4]") {
  const std::uint64_t schedules = std::getenv("WEFT_SOAK") == nullptr ? 5'000 : 250'000;
  for (const Limits& limits : kCases) {
    const std::string_view name = limits.name;
    if (name != "1 worker" && name != "2 workers") continue;
    for (const Strategy strategy : {Strategy::kRandom, Strategy::kPct}) {
      const char* how = strategy == Strategy::kRandom ? "/many random" : "/many pct3";
      const Result result = explore({.name = std::string("idle/") + limits.name + how,
                                     .strategy = strategy,
                                     .schedules = schedules},
                                    [&](Schedule& schedule) {
                                      Runtime runtime(schedule, limits);
                                      schedule.run();
                                    });
      REQUIRE(result.message == "");
    }
  }
}

#else

TEST_CASE("idle: the planted bug is found", "[sleep][watch][B4]") {
  INFO("plant " << base::kPlant);
  const Result result = explore_cases(100'000);
  REQUIRE(result.message != "");
  REQUIRE(result.schedules < 100'000);
}

#endif

}  // namespace
}  // namespace weft::model
