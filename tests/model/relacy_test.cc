// The run queues and the inbox under weak memory: what they hand out was written before, and no order is
// weaker than it may be. The interleavings of a strong machine are the business of run_queue_test.cc.
//
// The same program is built once for each planted memory order that is too weak, and must find it.
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include <catch2/catch.hpp>

#include "runtime/base/inbox.h"
#include "runtime/base/injection_queue.h"
#include "runtime/base/plant.h"
#include "runtime/base/ready_queue.h"
#include "runtime/base/spawn_deque.h"
#include "runtime/base/spin_lock.h"
#include "tests/model/relacy_explore.h"

namespace weft::relacy {
namespace {

constexpr std::uint64_t kJustBelowWrap = std::uint64_t{0} - 3;

struct Element {
  Element* link = nullptr;
  rl::var<int> payload{0};  // written before it is pushed, read by who took it
  int times_taken = 0;      // the checker's own
};

// What is pushed and taken, and whether each was taken once.
class Elements {
 public:
  Element* next() {
    Element* element = &all_[count_++];
    element->payload(rl::debug_info()).store(1);
    return element;
  }

  void take(Element* element) {
    if (element == nullptr) return;
    RL_ASSERT(element >= all_.data() && element < all_.data() + count_);
    RL_ASSERT(element->payload(rl::debug_info()).load() == 1);
    RL_ASSERT(element->times_taken++ == 0);
  }

  void check_all_taken() {
    for (std::size_t i = 0; i < count_; ++i) RL_ASSERT(all_[i].times_taken == 1);
  }

 private:
  std::array<Element, 12> all_;
  std::size_t count_ = 0;
};

using Deque = base::SpawnDeque<Element>;
using Ready = base::ReadyQueue<Element>;

struct Case {
  std::size_t capacity;
  std::uint64_t start;
  std::string_view owner;  // + pushes, - pops, o pops the oldest
  int steals;              // by each thief
  unsigned max;
};

constexpr Case kLast{2, 0, "+-+-", 1, 2};                      // owner and thief want the same one
constexpr Case kGrow{2, kJustBelowWrap, "++++--", 2, 3};       // the array moves under the thieves
constexpr Case kReuse{2, kJustBelowWrap, "++-++-++--", 2, 1};  // slots are written again
constexpr Case kOldest{2, 0, "++o+o-", 2, 2};                  // the owner takes as a thief does

template <class Queue, const Case& kCase, int kThieves>
class RunQueueTest : public rl::test_suite<RunQueueTest<Queue, kCase, kThieves>, kThieves + 1> {
 public:
  void thread(unsigned index) {
    if (index == 0) {
      for (const char action : kCase.owner) act(action);
    } else {
      for (int i = 0; i < kCase.steals; ++i) steal();
    }
  }

  void after() {
    while (Element* element = queue_.pop()) elements_.take(element);
    elements_.check_all_taken();
  }

 private:
  void act(char action) {
    if (action == '+') {
      const bool pushed = queue_.push(elements_.next());
      RL_ASSERT(pushed);
    } else {
      elements_.take(action == 'o' ? oldest() : queue_.pop());
    }
  }

  Element* oldest() {
    if constexpr (std::is_same_v<Queue, Deque>) {
      return queue_.pop_oldest();
    } else {
      return queue_.pop();  // which is the oldest
    }
  }

  void steal() {
    std::array<Element*, 4> loot{};
    const unsigned count = queue_.steal(loot.data(), kCase.max);
    for (unsigned i = 0; i < count; ++i) {
      RL_ASSERT(loot[i] != nullptr);
      elements_.take(loot[i]);
    }
  }

  Queue queue_{kCase.capacity, kCase.start};
  Elements elements_;
};

class InboxTest : public rl::test_suite<InboxTest, 3> {
 public:
  void thread(unsigned index) {
    if (index == 0) {
      receive();
      receive();
    } else {
      for (Element& element : sent_[index - 1]) {
        element.payload(rl::debug_info()).store(1);
        inbox_.push(&element);
      }
    }
  }

  void after() {
    receive();
    for (auto& elements : sent_) {
      for (Element& element : elements) RL_ASSERT(element.times_taken == 1);
    }
  }

 private:
  void receive() {
    auto messages = inbox_.take_all();
    while (Element* element = messages.pop()) {
      RL_ASSERT(element->payload(rl::debug_info()).load() == 1);
      RL_ASSERT(element->times_taken++ == 0);
    }
  }

  base::Inbox<Element, &Element::link> inbox_;
  std::array<std::array<Element, 2>, 2> sent_;
};

class InjectionTest : public rl::test_suite<InjectionTest, 3> {
 public:
  void thread(unsigned index) {
    if (index == 0) {
      take();
      take();
    } else {
      for (Element& element : sent_[index - 1]) {
        element.payload(rl::debug_info()).store(1);
        injection_.push(&element);
      }
    }
  }

  void after() {
    take();
    take();
    RL_ASSERT(injection_.empty());
    for (auto& elements : sent_) {
      for (Element& element : elements) RL_ASSERT(element.times_taken == 1);
    }
  }

 private:
  void take() {
    base::IntrusiveQueue<Element, &Element::link> share;
    injection_.take(share, 2);
    while (Element* element = share.pop()) {
      RL_ASSERT(element->payload(rl::debug_info()).load() == 1);
      RL_ASSERT(element->times_taken++ == 0);
    }
  }

  base::InjectionQueue<Element, &Element::link> injection_;
  std::array<std::array<Element, 2>, 2> sent_;
};

class SpinLockTest : public rl::test_suite<SpinLockTest, 2> {
 public:
  void thread(unsigned index) {
    for (int i = 0; i < 2; ++i) {
      if (index == 0) {
        lock_.lock();
      } else if (!lock_.try_lock()) {
        continue;
      }
      guarded_(rl::debug_info()).store(i);
      lock_.unlock();
    }
  }

 private:
  base::SpinLock lock_;
  rl::var<int> guarded_{0};
};

template <class Queue>
bool explore_run_queue(rl::iteration_t iterations) {
  return explore<RunQueueTest<Queue, kLast, 1>>(rl::sched_random, iterations) &&
         explore<RunQueueTest<Queue, kGrow, 2>>(rl::sched_random, iterations) &&
         explore<RunQueueTest<Queue, kReuse, 2>>(rl::sched_random, iterations) &&
         explore<RunQueueTest<Queue, kOldest, 2>>(rl::sched_random, iterations);
}

#ifndef WEFT_PLANT

TEST_CASE("spawn_deque: hands over under weak memory", "[spawn_deque][B1]") {
  REQUIRE(explore_run_queue<Deque>(200'000));
  REQUIRE(explore<RunQueueTest<Deque, kLast, 1>>(rl::sched_bound, 0));
}

TEST_CASE("ready_queue: hands over under weak memory", "[ready_queue][B1]") {
  REQUIRE(explore_run_queue<Ready>(200'000));
  REQUIRE(explore<RunQueueTest<Ready, kLast, 1>>(rl::sched_bound, 0));
}

TEST_CASE("inbox: hands over under weak memory", "[inbox][B3]") {
  REQUIRE(explore<InboxTest>(rl::sched_random, 200'000));
}

TEST_CASE("injection_queue: hands over under weak memory", "[injection_queue][B3]") {
  REQUIRE(explore<InjectionTest>(rl::sched_random, 100'000));
}

TEST_CASE("spin_lock: hands over under weak memory", "[spin_lock][B11]") {
  REQUIRE(explore<SpinLockTest>(rl::sched_random, 50'000));
}

#else

TEST_CASE("run queues: the planted memory order is found", "[plant][B2]") {
  INFO("plant " << base::kPlant);
  REQUIRE_FALSE((explore_run_queue<Deque>(100'000 / 8) && explore_run_queue<Ready>(100'000 / 8)));
}

#endif

}  // namespace
}  // namespace weft::relacy
