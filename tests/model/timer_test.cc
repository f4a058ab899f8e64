// Timers that are armed, disarmed, moved and fired from several threads at once: timers.cc and the wheel as
// they ship. A timer fires once, not early, and never again when disarm() has returned; what is said to
// be the earliest is no later than what is armed.
#include <array>
#include <cstdint>

#include <catch2/catch.hpp>

#include "runtime/base/plant.h"
#include "runtime/sched/timers.h"
#include "tests/model/explore.h"

namespace weft::model {
namespace {

using sched::Timer;
using sched::Timers;
using sched::WakeBatch;

// A timer, and what its owner knows of it.
class Alarm : public Timer {
 public:
  Alarm() : Timer(&fired) {}

  // What an owner does with its alarm: A arms it, O from outside, C as a wait whose park is refused, D
  // disarms it. Whether it has fired before does not matter to any of them.
  void act(char action, Timers& timers, std::int64_t until_ns) {
    if (action == 'D') {
      disarm();
      expected_ = false;
      return;
    }
    disarm();
    expected_ = true;
    fires_ = 0;
    moved_to_ns_ = 0;
    until_ns_ = until_ns;
    switch (action) {
      case 'A':
        return timers.arm(*this, until_ns, 0);
      case 'O':
        return timers.arm_outside(*this, until_ns, 0);
      case 'C':
        timers.arm_and(*this, until_ns, 0, [] { return false; });
        expected_ = false;
        return;
    }
  }

  // Moves it to later without a look at where it is, as a Timeout does.
  void move_to(std::int64_t until_ns) { moved_to_ns_ = until_ns; }

  void check_at_rest(Timers& timers) const {
    check(!armed() || timers.earliest() <= this->deadline_ns,
          "a timer is earlier than what is said to be the earliest");
    check(armed() || fires_ == 1 || !expected_, "a timer was lost");
  }

 private:
  static void fired(Timer& timer, std::int64_t now_ns, WakeBatch&) {
    auto& self = static_cast<Alarm&>(timer);
    self.touched_.store(true, std::memory_order_relaxed);  // a moment in which others may run
    if (self.moved_to_ns_ > now_ns) {
      self.until_ns_ = self.moved_to_ns_;
      return self.home->insert(self, self.moved_to_ns_, now_ns);
    }
    check(self.expected_, "a timer fired that was disarmed");
    check(self.fires_++ == 0, "a timer fired twice");
    check(now_ns >= self.until_ns_, "a timer fired early");
  }

  base::Atomic<bool> touched_{false};
  bool expected_ = false;
  int fires_ = 0;
  std::int64_t until_ns_ = 0;
  std::int64_t moved_to_ns_ = 0;
};

// The owner of the timers and somebody outside act on their alarms, while a watcher fires what is due: at
// times that the wheel has passed, and at such as are ahead of it.
void timers_of_two(Schedule& schedule) {
  Timers timers(0);
  std::array<Alarm, 3> alarms;
  const std::int64_t start_ns = os::now_ns() + 1'000'000'000;
  schedule.name(timers, "timers");
  const auto any_time = [start_ns] { return start_ns + 100 * choose(3); };
  schedule.add("owner", [&] {
    for (const char action : {'A', "ADC"[choose(3)], 'A'})
      alarms[0].act(action, timers, any_time());
    WakeBatch batch;
    timers.fire_due(start_ns + 100, batch);
  });
  schedule.add("outsider", [&] {
    for (const char action : {'O', "OD"[choose(2)]}) alarms[1].act(action, timers, any_time());
  });
  alarms[2].act('A', timers, start_ns);
  if (choose(2) == 0) alarms[2].move_to(start_ns + 250);
  schedule.add("watcher", [&] {
    for (int turn = 0; turn < 2; ++turn) {
      WakeBatch batch;
      timers.fire_due(start_ns + 100 * turn, batch);
    }
  });
  schedule.run();
  for (const Alarm& alarm : alarms) alarm.check_at_rest(timers);
  WakeBatch batch;
  timers.fire_due(start_ns + 1'000, batch);
  for (const Alarm& alarm : alarms) {
    check(!alarm.armed(), "a timer that is due was not fired");
    alarm.check_at_rest(timers);
  }
  check(timers.earliest() == base::TimerWheel::kNever, "there is an earliest timer of none");
}

constexpr std::array kCases = {Case{"two", timers_of_two, 100'000}};

#ifndef WEFT_PLANT

TEST_CASE("timers: each fires once, in time, and never when it was disarmed", "[timer][B10]") {
  REQUIRE(explore_cases("timers", kCases).message == "");
}

#else

TEST_CASE("timers: the planted bug is found", "[timer][B10]") {
  INFO("plant " << base::kPlant);
  const Result result = explore_cases("timers", kCases);
  REQUIRE(result.message != "");
  REQUIRE(result.schedules < 100'000);
}

#endif

}  // namespace
}  // namespace weft::model
