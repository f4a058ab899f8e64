// One owner and two thieves on a run queue, until it is empty; then who took what is counted.
//
// The elements are plain memory on purpose: one that is handed out twice, or before what was
// written to it is visible, is a data race for TSan, and a wrong count for everybody else.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

#include "tests/support/random.h"

namespace weft::test {

struct Item {
  std::uint32_t number = 0;  // written just before the push
  std::uint32_t taken = 0;   // by whoever took it
};

struct StressResult {
  std::size_t wrong = 0;   // elements not taken exactly once, or seen without their number
  std::size_t stolen = 0;  // by the thieves
};

// `take` is what the owner calls to take one: Item*(Queue&, Random&).
template <class Queue, class Take>
StressResult stress(Queue& queue, std::size_t count, std::uint64_t seed, Take take) {
  std::vector<Item> items(count);
  std::atomic<bool> done{false};
  std::atomic<std::size_t> stolen{0};
  std::atomic<std::size_t> unseen{0};

  const auto account = [&](Item* item) {
    // relaxed: a tally, read after the threads were joined.
    const auto index = static_cast<std::size_t>(item - items.data());
    if (item->number != index + 1) unseen.fetch_add(1, std::memory_order_relaxed);
    ++item->taken;
  };
  const auto thief = [&](std::uint64_t thief_seed) {
    Random random(thief_seed);
    Item* loot[32];
    // relaxed: only when to stop.
    while (!done.load(std::memory_order_relaxed)) {
      const unsigned taken = queue.steal(loot, 1 + static_cast<unsigned>(random.below(32)));
      for (unsigned i = 0; i < taken; ++i) account(loot[i]);
      stolen.fetch_add(taken, std::memory_order_relaxed);
      if (taken == 0) std::this_thread::yield();
    }
  };
  std::thread first(thief, seed + 1);
  std::thread second(thief, seed + 2);

  Random random(seed);
  std::size_t pushed = 0;
  while (pushed < count || !queue.empty()) {
    // Long bursts make the queue grow, short ones keep it at the edge of emptiness.
    const auto burst = random.one_in(16) ? random.below(200) : random.below(4);
    for (std::uint64_t i = 0; i < burst && pushed < count; ++i) {
      items[pushed].number = static_cast<std::uint32_t>(pushed + 1);
      if (!queue.push(&items[pushed])) break;
      ++pushed;
    }
    for (auto pops = random.below(8); pops > 0; --pops) {
      Item* item = take(queue, random);
      if (item == nullptr) break;
      account(item);
    }
    if (random.one_in(64)) std::this_thread::yield();
  }
  done.store(true, std::memory_order_relaxed);
  first.join();
  second.join();

  StressResult result{unseen.load(std::memory_order_relaxed),
                      stolen.load(std::memory_order_relaxed)};
  for (const Item& item : items) result.wrong += item.taken == 1 ? 0 : 1;
  return result;
}

}  // namespace weft::test
