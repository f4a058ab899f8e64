// The injection queue and the inbox under every interleaving that the strategies draw: three
// producers, one or two takers, nothing lost, nothing twice, each producer's elements in order.
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include <catch2/catch.hpp>

#include "runtime/base/inbox.h"
#include "runtime/base/injection_queue.h"
#include "runtime/base/plant.h"
#include "tests/model/explore.h"

namespace weft::model {
namespace {

constexpr int kProducers = 3;
constexpr int kEach = 2;

struct Element {
  Element* link = nullptr;
  int producer = 0;
  int number = 0;
  int times_taken = 0;
};

using Inbox = base::Inbox<Element, &Element::link>;
using Injection = base::InjectionQueue<Element, &Element::link>;
using Queue = base::IntrusiveQueue<Element, &Element::link>;

// What the producers have, and what one taker has seen of each.
struct Elements {
  Elements() {
    for (int i = 0; i < kProducers; ++i) {
      for (int n = 0; n < kEach; ++n) of(i, n) = Element{nullptr, i, n};
    }
  }

  Element& of(int producer, int number) {
    return all[static_cast<std::size_t>(producer * kEach + number)];
  }

  void check_all_taken() {
    for (const Element& element : all) check(element.times_taken == 1, "an element was lost");
  }

  std::array<Element, kProducers * kEach> all;
};

class Taker {
 public:
  void take(Queue& queue) {
    while (Element* element = queue.pop()) {
      check(element->times_taken++ == 0, "an element was handed out twice");
      int& last = last_[static_cast<std::size_t>(element->producer)];
      check(element->number > last, "one producer's elements came out of order");
      last = element->number;
    }
  }

 private:
  std::array<int, kProducers> last_{-1, -1, -1};
};

constexpr std::array kProducerNames = {"producer 0", "producer 1", "producer 2"};

void play_inbox(Schedule& schedule) {
  Inbox inbox;
  Elements elements;
  Taker taker;
  int rings = 0;
  schedule.name(inbox, "inbox");
  for (int i = 0; i < kProducers; ++i) {
    schedule.add(kProducerNames[static_cast<std::size_t>(i)], [&, i] {
      for (int n = 0; n < kEach; ++n) rings += inbox.push(&elements.of(i, n)) ? 1 : 0;
    });
  }
  int deliveries = 0;
  auto receive = [&] {
    Queue messages = inbox.take_all();
    deliveries += messages.empty() ? 0 : 1;
    taker.take(messages);
  };
  schedule.add("receiver", [&] {
    for (int n = 0; n < 3; ++n) receive();
  });
  schedule.run();
  receive();
  elements.check_all_taken();
  check(rings == deliveries, "a filled inbox was not reported by exactly one sender");
}

void play_injection(Schedule& schedule) {
  Injection injection;
  Elements elements;
  std::array<Taker, 2> takers;
  schedule.name(injection, "injection");
  for (int i = 0; i < kProducers; ++i) {
    schedule.add(kProducerNames[static_cast<std::size_t>(i)], [&, i] {
      if (i == 0) {  // all at once, as a worker that spills does
        Queue batch;
        for (int n = 0; n < kEach; ++n) batch.push(&elements.of(i, n));
        injection.push_all(batch);
      } else {
        for (int n = 0; n < kEach; ++n) injection.push(&elements.of(i, n));
      }
    });
  }
  for (Taker& taker : takers) {
    schedule.add("taker", [&] {
      for (int n = 0; n < 2; ++n) {
        Queue share;
        injection.take(share, 2);
        taker.take(share);
      }
    });
  }
  schedule.run();
  Queue rest;
  const std::size_t left = injection.size();
  check(injection.take(rest, kProducers * kEach) == left, "the count is not that of the list");
  Taker().take(rest);
  check(injection.empty_seq_cst(), "not empty after all was taken");
  elements.check_all_taken();
}

TEST_CASE("injection_queue: each element is handed out once and in order",
          "[injection_queue][B3]") {
  REQUIRE(explore_all("injection_queue", 1'000'000, play_injection).message == "");
}

#ifndef WEFT_PLANT

TEST_CASE("inbox: each message arrives once and in order", "[inbox][B3]") {
  REQUIRE(explore_all("inbox", 1'000'000, play_inbox).message == "");
}

#else

TEST_CASE("inbox: the planted bug is found", "[inbox][B2]") {
  INFO("plant " << base::kPlant);
  const Result result = explore_all("inbox", 100'000, play_inbox);
  REQUIRE(result.message != "");
  REQUIRE(result.schedules < 100'000);
}

#endif

}  // namespace
}  // namespace weft::model
