// The two run queues under every interleaving that the strategies draw: their owner pushes and
// pops, one or two thieves steal, the arrays are small and grow, and the indices wrap.
//
// The same program is built once for each planted bug that an interleaving can show, and then
// expects to find it. Those that need weaker memory than this one's are found by
// run_queue_relacy_test.cc.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <catch2/catch.hpp>

#include "runtime/base/plant.h"
#include "runtime/base/ready_queue.h"
#include "runtime/base/spawn_deque.h"
#include "tests/model/explore.h"

namespace weft::model {
namespace {

constexpr int kElementsMax = 16;
constexpr std::uint64_t kJustBelowWrap = std::uint64_t{0} - 3;

struct Element {
  int times_taken = 0;
};

using Deque = base::SpawnDeque<Element>;
using Ready = base::ReadyQueue<Element>;

struct Case {
  const char* name;
  std::size_t capacity;
  std::uint64_t start;
  std::string_view owner;  // + pushes, - pops, o pops the oldest, ? is any of them
  int thieves;
  int steals;  // by each of them
  unsigned max;
};

constexpr std::array kCases = {
    Case{"round", 4, kJustBelowWrap, "++++----++++--", 1, 1, 2},
    Case{"grow", 2, 0, "+++-+--", 1, 2, 2},
    Case{"wrap", 4, kJustBelowWrap, "++++--+++-", 1, 2, 32},
    Case{"last", 2, kJustBelowWrap, "+-+-+-", 2, 2, 1},
    Case{"oldest", 2, 0, "++o+o-", 2, 1, 2},
    Case{"any", 2, kJustBelowWrap, "+????????", 2, 2, 3},
};

// One queue, what was put in and what came out.
template <class Queue>
class Bench {
 public:
  explicit Bench(const Case& tested) : queue_(tested.capacity, tested.start) {}

  Queue& queue() { return queue_; }

  void act(char action) {
    if (action == '?') action = "+-o"[choose(3)];
    if (action == '+') {
      Element* element = &elements_[static_cast<std::size_t>(pushed_++)];
      check(queue_.push(element), "no memory");
    } else if (action == 'o') {
      take(oldest());
    } else {
      take(queue_.pop());
    }
  }

  void steal(unsigned max) {
    std::array<Element*, 32> loot;
    const int taken_before = taken_;
    const unsigned count = queue_.steal(loot.data(), max);
    const unsigned found_max = static_cast<unsigned>(pushed_ - taken_before);
    check(count <= std::min((found_max + 1) / 2, max), "a thief took more than half");
    for (unsigned i = 0; i < count; ++i) {
      check(loot[i] != nullptr, "a thief got nothing for something");
      check(i == 0 || loot[i] > loot[i - 1], "a thief did not take the oldest in order");
      take(loot[i]);
    }
  }

  // Call from: the body, when the threads have ended.
  void check_all_taken() {
    while (Element* element = queue_.pop()) take(element);
    check(queue_.empty(), "not empty after all was popped");
    for (int i = 0; i < pushed_; ++i) {
      check(elements_[static_cast<std::size_t>(i)].times_taken == 1, "an element was lost");
    }
  }

 private:
  Element* oldest() {
    if constexpr (std::is_same_v<Queue, Deque>) {
      return queue_.pop_oldest();
    } else {
      return queue_.pop();  // which is the oldest
    }
  }

  void take(Element* element) {
    if (element == nullptr) return;
    check(element >= elements_.data() && element < elements_.data() + pushed_,
          "an element came out that was not put in");
    check(element->times_taken++ == 0, "an element was handed out twice");
    ++taken_;
  }

  Queue queue_;
  std::array<Element, kElementsMax> elements_{};
  int pushed_ = 0;
  int taken_ = 0;
};

template <class Queue>
void play(Schedule& schedule, const Case& tested) {
  Bench<Queue> bench(tested);
  schedule.name(bench.queue(), "queue");
  schedule.add("owner", [&] {
    for (const char action : tested.owner) bench.act(action);
  });
  constexpr std::array kThieves = {"thief", "other thief"};
  for (int i = 0; i < tested.thieves; ++i) {
    schedule.add(kThieves[static_cast<std::size_t>(i)], [&] {
      for (int n = 0; n < tested.steals; ++n) bench.steal(tested.max);
    });
  }
  schedule.run();
  bench.check_all_taken();
}

// All cases, with `schedules` schedules together. Returns the exploration that failed, or the last;
// the number of schedules is that of all of them.
template <class Queue>
Result explore_cases(const std::string& name, std::uint64_t schedules) {
  Result result;
  std::uint64_t total = 0;
  for (const Case& tested : kCases) {
    result = explore_all(name + "/" + tested.name, schedules / kCases.size(),
                         [&](Schedule& schedule) { play<Queue>(schedule, tested); });
    total += result.schedules;
    if (!result.message.empty()) break;
  }
  result.schedules = total;
  return result;
}

#ifndef WEFT_PLANT

TEST_CASE("spawn_deque: each element is handed out once", "[spawn_deque][B1]") {
  REQUIRE(explore_cases<Deque>("spawn_deque", 1'000'000).message == "");
}

TEST_CASE("ready_queue: each element is handed out once", "[ready_queue][B1]") {
  REQUIRE(explore_cases<Ready>("ready_queue", 1'000'000).message == "");
}

#else

TEST_CASE("ready_queue: the planted bug is found", "[ready_queue][B2]") {
  INFO("plant " << base::kPlant);
  const Result result = explore_cases<Ready>("ready_queue", 100'000);
  REQUIRE(result.message != "");
  REQUIRE(result.schedules < 100'000);
}

#endif

}  // namespace
}  // namespace weft::model
