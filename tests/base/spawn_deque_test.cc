// The spawn deque against std::deque, at its limits, and with two thieves.
#include "runtime/base/spawn_deque.h"

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
using Deque = weft::base::SpawnDeque<Item>;

// Where 32 and 64 bits wrap.
constexpr std::uint64_t kStarts[] = {0, (std::uint64_t{1} << 32) - 3, ~std::uint64_t{0} - 2};

Item* take(Deque& deque, Random& random) {
  return random.one_in(8) ? deque.pop_oldest() : deque.pop();
}

}  // namespace

TEST_CASE("spawn_deque: does what std::deque does", "[spawn_deque][B1]") {
  Random random(weft::test::seed());
  for (const std::uint64_t start : kStarts) {
    std::vector<Item> items(300);
    Deque deque(1 + random.below(4), start);
    std::deque<Item*> model;
    std::size_t next = 0;
    for (int step = 0; step < 50'000; ++step) {
      const auto action = random.below(20);
      if (action < 10 && model.size() < items.size()) {
        Item* item = &items[next++ % items.size()];
        if (!deque.push(item)) FAIL("no memory");
        model.push_back(item);
      } else if (action < 16) {
        Item* const expected = model.empty() ? nullptr : model.back();
        if (deque.pop() != expected) FAIL("pop at step " << step);
        if (expected != nullptr) model.pop_back();
      } else if (action < 18) {
        Item* const expected = model.empty() ? nullptr : model.front();
        if (deque.pop_oldest() != expected) FAIL("pop_oldest at step " << step);
        if (expected != nullptr) model.pop_front();
      } else {
        Item* loot[32];
        const auto max = static_cast<unsigned>(1 + random.below(32));
        const unsigned taken = deque.steal(loot, max);
        if (taken != std::min<std::size_t>((model.size() + 1) / 2, max)) FAIL("share at " << step);
        if (!std::equal(loot, loot + taken, model.begin())) FAIL("steal at step " << step);
        model.erase(model.begin(), model.begin() + taken);
      }
      if (random.one_in(4)) deque.publish_seq_cst();
      if (deque.size() != model.size()) FAIL("size at step " << step);
      if (deque.empty() != model.empty() || deque.empty_seq_cst() != model.empty()) FAIL("empty");
    }
  }
}

TEST_CASE("spawn_deque: with two thieves each element is taken exactly once", "[spawn_deque][B1]") {
  const std::uint64_t start = GENERATE(from_range(std::begin(kStarts), std::end(kStarts)));
  Deque deque(4, start);
  const auto result = weft::test::stress(deque, 500'000, weft::test::seed(), take);
  CAPTURE(start, result.stolen);
  CHECK(result.wrong == 0);
  CHECK(deque.empty());
}
