// The timer wheel against a std::multimap in virtual time: same order, none early, from any start.
#include "runtime/base/timer_wheel.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <vector>

#include <catch2/catch.hpp>

#include "tests/support/random.h"

namespace {

using weft::base::TimerNode;
using weft::base::TimerWheel;
using weft::test::Random;

constexpr std::int64_t kMin = std::numeric_limits<std::int64_t>::min();
constexpr std::int64_t kNever = TimerWheel::kNever;

struct Timer : TimerNode {
  std::multimap<std::int64_t, Timer*>::iterator place;
};

std::int64_t saturating_add(std::int64_t a, std::int64_t b) {
  std::int64_t sum = 0;
  return __builtin_add_overflow(a, b, &sum) ? (b > 0 ? kNever : kMin) : sum;
}

// The wheel and its reference, which keeps equal deadlines in the order of insertion, too.
class Pair {
 public:
  explicit Pair(std::int64_t start) : wheel_(std::make_unique<TimerWheel>(start)) {}

  void insert(Timer* timer, std::int64_t deadline_ns) {
    timer->deadline_ns = deadline_ns;
    wheel_->insert(timer);
    timer->place = reference_.emplace(deadline_ns, timer);
  }

  void remove(Timer* timer) {
    if (!wheel_->remove(timer)) FAIL("the wheel has lost a timer");
    reference_.erase(timer->place);
  }

  // Fires all that is due; returns how many.
  std::size_t fire(std::int64_t now_ns) {
    std::size_t fired = 0;
    while (TimerNode* node = wheel_->pop_due(now_ns)) {
      ++fired;
      if (node->deadline_ns > now_ns) FAIL("early by " << node->deadline_ns - now_ns << " ns");
      if (reference_.empty() || reference_.begin()->second != node) {
        FAIL("out of order: " << node->deadline_ns);
      }
      reference_.erase(reference_.begin());
      if (node->armed()) FAIL("still armed");
    }
    if (!reference_.empty()) {
      const std::int64_t next = reference_.begin()->first;
      if (next <= now_ns && next != kNever) FAIL("late: " << next << " at " << now_ns);
    }
    if (wheel_->empty() != reference_.empty()) FAIL("empty() is wrong");
    return fired;
  }

  [[nodiscard]] std::int64_t earliest() const { return wheel_->earliest(); }
  [[nodiscard]] std::int64_t true_earliest() const {
    return reference_.empty() ? kNever : reference_.begin()->first;
  }

 private:
  std::unique_ptr<TimerWheel> wheel_;
  std::multimap<std::int64_t, Timer*> reference_;
};

// Deadlines as users have them, and as they should not but might.
std::int64_t some_deadline(Random& random, std::int64_t now_ns) {
  const unsigned level_bits = 6 * static_cast<unsigned>(random.below(11));
  const auto tick = static_cast<std::int64_t>(std::uint64_t{1} << level_bits);
  const auto nearby = static_cast<std::int64_t>(random.below(3)) - 1;
  switch (random.below(12)) {
    case 0:  // anything that is positive
      return static_cast<std::int64_t>(random.next() >> 1);
    case 1:  // the boundaries of a level, absolute ...
      return saturating_add(tick, nearby);
    case 2:  // ... after now ...
      return saturating_add(now_ns, saturating_add(tick, nearby));
    case 3:  // ... and where the digits of now roll over
      return saturating_add((now_ns / tick) * tick, saturating_add(tick, nearby));
    case 4: {
      const std::int64_t special[] = {0, -1, kMin, kMin + 1, kNever, kNever - 1, now_ns};
      return special[random.below(std::size(special))];
    }
    case 5:  // overdue
      return saturating_add(now_ns, -static_cast<std::int64_t>(random.below(1000)));
    case 6:  // negative
      return -static_cast<std::int64_t>(random.next() >> 1);
    case 7:  // many that are equal
      return saturating_add(now_ns, static_cast<std::int64_t>(random.below(4) * 1'000));
    default:  // up to a thousand seconds
      return saturating_add(
          now_ns, static_cast<std::int64_t>(random.below(std::uint64_t{1} << random.below(40))));
  }
}

// Arms `count` timers, of which some are removed and the rest fires, in virtual time from `start`.
void run_against_reference(std::int64_t start, std::size_t count, Random& random) {
  Pair pair(start);
  std::int64_t now_ns = start;
  std::vector<Timer> timers(5'000);
  for (std::size_t armed = 0; armed < count;) {
    for (auto burst = random.below(random.one_in(50) ? 3'000 : 10); burst > 0; --burst) {
      Timer* timer = &timers[random.below(timers.size())];
      if (timer->armed()) {
        if (random.one_in(2)) pair.remove(timer);
        continue;
      }
      pair.insert(timer, some_deadline(random, now_ns));
      ++armed;
    }
    if (pair.earliest() > pair.true_earliest()) FAIL("earliest() would oversleep");
    switch (random.below(8)) {
      case 0:
        now_ns = std::max(now_ns, pair.earliest());
        break;
      case 1:
        now_ns = saturating_add(now_ns, 1);
        break;
      case 2:  // rarely far: only once can each start be used up
        now_ns = saturating_add(
            now_ns, static_cast<std::int64_t>(random.below(std::uint64_t{1} << random.below(44))));
        break;
      default:
        now_ns = saturating_add(now_ns, static_cast<std::int64_t>(random.below(100'000)));
    }
    pair.fire(now_ns);
  }
  pair.fire(kNever);
  for (Timer& timer : timers) {
    if (!timer.armed()) continue;
    if (timer.deadline_ns != kNever) FAIL("forgotten: " << timer.deadline_ns);
    pair.remove(&timer);
  }
  CHECK(pair.fire(kNever) == 0);
  CHECK(pair.earliest() == kNever);
}

}  // namespace

TEST_CASE("timer_wheel: fires what a sorted map would, in the same order", "[timer_wheel][E1]") {
  Random random(weft::test::seed());
  run_against_reference(0, 300'000, random);
  run_against_reference(kMin, 100'000, random);
}

TEST_CASE("timer_wheel: does so from any reading of the clock", "[timer_wheel][E2]") {
  constexpr std::int64_t kNearTheEnd = kNever - 1'000'000'000;
  constexpr std::int64_t kStarts[] = {(std::int64_t{1} << 32) - 1, kNearTheEnd, -1,
                                      (std::int64_t{1} << 62) - 1};
  const std::int64_t start = GENERATE_REF(from_range(std::begin(kStarts), std::end(kStarts)));
  Random random(weft::test::seed() + static_cast<std::uint64_t>(start));
  run_against_reference(start, 150'000, random);
}

TEST_CASE("timer_wheel: boundaries of every level, with one tick more and less",
          "[timer_wheel][E1]") {
  for (const std::int64_t start :
       {std::int64_t{0}, (std::int64_t{1} << 32) - 1, std::int64_t{-64}}) {
    Pair pair(start);
    std::vector<Timer> timers(11 * 3);
    for (unsigned i = 0; i < timers.size(); ++i) {
      const auto boundary = static_cast<std::int64_t>(std::uint64_t{1} << (6 * (i / 3)));
      pair.insert(&timers[i], saturating_add(start, boundary + static_cast<int>(i % 3) - 1));
    }
    std::int64_t now_ns = start;
    for (std::size_t wakes = 0; wakes < timers.size() && now_ns != kNever; ++wakes) {
      pair.fire(now_ns - 1);
      pair.fire(now_ns);
      now_ns = pair.earliest();
    }
    CHECK(pair.true_earliest() == kNever);
  }
}

TEST_CASE("timer_wheel: who sleeps until earliest() wakes for nothing only after a removal",
          "[timer_wheel][C10]") {
  Random random(weft::test::seed());
  Pair pair(0);
  std::vector<Timer> timers(2'000);
  for (Timer& timer : timers) {
    pair.insert(&timer, static_cast<std::int64_t>(random.below(std::uint64_t{1} << 40)));
  }
  std::size_t removed = 0;
  std::size_t idle_wakes = 0;
  const auto sleep_and_fire = [&] { idle_wakes += pair.fire(pair.earliest()) == 0 ? 1 : 0; };

  for (int i = 0; i < 500; ++i) sleep_and_fire();
  CHECK(idle_wakes == 0);

  for (Timer& timer : timers) {
    if (!timer.armed() || random.one_in(4)) continue;
    pair.remove(&timer);
    ++removed;
  }
  while (pair.earliest() != kNever) sleep_and_fire();
  CHECK(idle_wakes <= removed);
  CHECK(pair.true_earliest() == kNever);
}

TEST_CASE("timer_wheel: kNever is never due, and can be removed", "[timer_wheel][E1]") {
  TimerWheel wheel(0);
  TimerNode never;
  TimerNode last;
  never.deadline_ns = kNever;
  last.deadline_ns = kNever - 1;
  wheel.insert(&never);
  CHECK(wheel.earliest() == kNever);
  wheel.insert(&last);
  CHECK(wheel.earliest() == kNever - 1);
  CHECK(wheel.pop_due(kNever - 2) == nullptr);
  CHECK(wheel.pop_due(kNever) == &last);
  CHECK(wheel.pop_due(kNever) == nullptr);
  CHECK_FALSE(wheel.empty());
  CHECK(wheel.remove(&never));
  CHECK_FALSE(wheel.remove(&never));
  CHECK(wheel.empty());
}
