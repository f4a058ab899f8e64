// The ready queue against std::deque, at its limits, and with two thieves; what it looks ahead to.
#include "runtime/base/ready_queue.h"

#include <algorithm>
#include <cstdint>
#include <deque>
#include <vector>

#include <catch2/catch.hpp>

#include "tests/base/queue_stress.h"
#include "tests/support/random.h"

namespace {

using weft::test::Item;
using weft::test::Random;

struct LookAhead {
  static void far_ahead(const Item* item) { far = item; }
  static void near_ahead(const Item* item) { near = item; }
  static inline const Item* far = nullptr;
  static inline const Item* near = nullptr;
};

using Queue = weft::base::ReadyQueue<Item>;
using LookingQueue = weft::base::ReadyQueue<Item, LookAhead>;

// Where 32 and 64 bits wrap.
constexpr std::uint64_t kStarts[] = {0, (std::uint64_t{1} << 32) - 3, ~std::uint64_t{0} - 2};

}  // namespace

TEST_CASE("ready_queue: does what std::deque does", "[ready_queue][B1]") {
  Random random(weft::test::seed());
  for (const std::uint64_t start : kStarts) {
    std::vector<Item> items(300);
    Queue queue(1 + random.below(4), start);
    std::deque<Item*> model;
    std::size_t next = 0;
    for (int step = 0; step < 50'000; ++step) {
      const auto action = random.below(20);
      if (action < 10 && model.size() < items.size()) {
        Item* item = &items[next++ % items.size()];
        if (!queue.push(item)) FAIL("no memory");
        model.push_back(item);
      } else if (action < 17) {
        Item* const expected = model.empty() ? nullptr : model.front();
        if (queue.pop() != expected) FAIL("pop at step " << step);
        if (expected != nullptr) model.pop_front();
      } else {
        Item* loot[32];
        const auto max = static_cast<unsigned>(1 + random.below(32));
        const unsigned taken = queue.steal(loot, max);
        if (taken != std::min<std::size_t>((model.size() + 1) / 2, max)) FAIL("share at " << step);
        if (!std::equal(loot, loot + taken, model.begin())) FAIL("steal at step " << step);
        model.erase(model.begin(), model.begin() + taken);
      }
      if (random.one_in(4)) queue.publish_seq_cst();
      if (queue.size() != model.size()) FAIL("size at step " << step);
      if (queue.empty() != model.empty() || queue.empty_seq_cst() != model.empty()) FAIL("empty");
    }
  }
}

TEST_CASE("ready_queue: pop looks five and two elements ahead, as far as there are any",
          "[ready_queue]") {
  std::vector<Item> items(8);
  LookingQueue queue(4);
  for (Item& item : items) REQUIRE(queue.push(&item));
  for (std::size_t i = 0; i < items.size(); ++i) {
    LookAhead::far = nullptr;
    LookAhead::near = nullptr;
    REQUIRE(queue.pop() == &items[i]);
    CHECK(LookAhead::far == (i + 5 < items.size() ? &items[i + 5] : nullptr));
    CHECK(LookAhead::near == (i + 2 < items.size() ? &items[i + 2] : nullptr));
  }
}

TEST_CASE("ready_queue: with two thieves each element is taken exactly once", "[ready_queue][B1]") {
  const std::uint64_t start = GENERATE(from_range(std::begin(kStarts), std::end(kStarts)));
  Queue queue(4, start);
  const auto result = weft::test::stress(queue, 500'000, weft::test::seed(),
                                         [](Queue& from, Random&) { return from.pop(); });
  CAPTURE(start, result.stolen);
  CHECK(result.wrong == 0);
  CHECK(queue.empty());
}
