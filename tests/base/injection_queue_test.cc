// The injection queue: order, shares, and three producers with two takers.
#include "runtime/base/injection_queue.h"

#include <atomic>
#include <deque>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>

#include "tests/support/random.h"

namespace {

using weft::test::Random;

struct Message {
  Message* link = nullptr;
  unsigned producer = 0;
  unsigned number = 0;
  unsigned taken = 0;
};

using Queue = weft::base::InjectionQueue<Message, &Message::link>;

}  // namespace

TEST_CASE("injection_queue: does what std::deque does", "[injection_queue][B3]") {
  Random random(weft::test::seed());
  std::vector<Message> messages(100);
  std::deque<Message*> free;
  for (Message& message : messages) free.push_back(&message);
  Queue queue;
  std::deque<Message*> model;
  for (int step = 0; step < 100'000; ++step) {
    const auto action = random.below(10);
    if (action < 4 && !free.empty()) {
      queue.push(free.front());
      model.push_back(free.front());
      free.pop_front();
    } else if (action < 6) {
      Queue::Queue batch;
      for (auto count = random.below(5); count > 0 && !free.empty(); --count) {
        batch.push(free.front());
        model.push_back(free.front());
        free.pop_front();
      }
      queue.push_all(batch);
      if (!batch.empty()) FAIL("push_all left something behind");
    } else {
      Queue::Queue out;
      const std::size_t max = random.below(7);
      const std::size_t taken = queue.take(out, max);
      if (taken != std::min(model.size(), max)) FAIL("the share is wrong at step " << step);
      for (std::size_t i = 0; i < taken; ++i) {
        if (out.pop() != model.front()) FAIL("the order is wrong at step " << step);
        free.push_back(model.front());
        model.pop_front();
      }
      if (!out.empty()) FAIL("more than was said at step " << step);
    }
    if (queue.size() != model.size()) FAIL("size at step " << step);
    if (queue.empty() != model.empty() || queue.empty_seq_cst() != model.empty()) FAIL("empty");
  }
}

TEST_CASE("injection_queue: with three producers each element arrives once and in order",
          "[injection_queue][B3]") {
  constexpr unsigned kProducers = 3;
  constexpr unsigned kEach = 40'000;
  std::vector<Message> messages(kProducers * kEach);
  Queue queue;
  std::atomic<unsigned> left{kProducers * kEach};
  std::atomic<unsigned> disorder{0};

  std::vector<std::thread> threads;
  for (unsigned producer = 0; producer < kProducers; ++producer) {
    threads.emplace_back([&, producer] {
      Random random(weft::test::seed() + producer);
      Message* next = &messages[producer * kEach];
      unsigned number = 0;
      while (number < kEach) {
        Queue::Queue batch;
        const auto size = random.one_in(3) ? random.below(9) : 1;
        for (std::uint64_t i = 0; i < size && number < kEach; ++i, ++next) {
          next->producer = producer;
          next->number = ++number;
          batch.push(next);
        }
        if (size == 1) {
          queue.push(batch.pop());
        } else {
          queue.push_all(batch);
        }
      }
    });
  }
  for (unsigned taker = 0; taker < 2; ++taker) {
    threads.emplace_back([&] {
      unsigned last[kProducers] = {};
      // relaxed: tallies, read after the threads were joined.
      while (left.load(std::memory_order_relaxed) > 0) {
        Queue::Queue share;
        const auto taken = static_cast<unsigned>(queue.take(share, 32));
        while (Message* message = share.pop()) {
          ++message->taken;
          if (message->number <= last[message->producer]) {
            disorder.fetch_add(1, std::memory_order_relaxed);
          }
          last[message->producer] = message->number;
        }
        left.fetch_sub(taken, std::memory_order_relaxed);
        if (taken == 0) std::this_thread::yield();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();

  std::size_t wrong = 0;
  for (const Message& message : messages) wrong += message.taken == 1 ? 0 : 1;
  CHECK(wrong == 0);
  CHECK(disorder.load(std::memory_order_relaxed) == 0);
  CHECK(queue.empty_seq_cst());
}
