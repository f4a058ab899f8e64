// Parking, waking and cancelling: wait(), ObjectWord, WaitList, ClaimWord and WakeBatch as they ship,
// under fibers on two model workers. Nobody waits for ever, nothing that was handed over is lost, an
// object may go as soon as the wait on it has returned, and each wait ends once, for the first reason.
#include "runtime/sched/park.h"

#include <array>
#include <cstddef>
#include <string>

#include <catch2/catch.hpp>

#include "runtime/base/plant.h"
#include "runtime/base/spin_lock.h"
#include "runtime/sched/wake_batch.h"
#include "tests/model/blocking.h"
#include "tests/model/explore.h"
#include "tests/model/fibers.h"
#include "tests/model/permits.h"
#include "tests/model/ring.h"

namespace weft::model {
namespace {

using sched::FiberBlock;
using sched::kCancel;
using sched::ObjectWord;
using sched::WaitList;
using sched::WaitNode;
using sched::WakeBatch;

// A thread that asks a fiber to end its waits, `times` times.
void add_canceller(Schedule& schedule, Fibers& fibers, FiberBlock& fiber, int times = 1) {
  fibers.take_reference(fiber);
  schedule.add("canceller", [&fibers, &fiber, times] {
    for (int i = 0; i < times; ++i) Fibers::request(fiber, kCancel);
    fibers.drop_reference(fiber);
  });
}

// Nobody gives anything: only the request can end the wait.
void cancel_alone(Schedule& schedule) {
  Fibers fibers(schedule, 1);
  Permits permits;
  schedule.name(permits, "permits");
  FiberBlock& waiter = fibers.add("waiter", [&] {
    check(!permits.acquire(kCancel), "a permit came from nowhere");
    check(Fibers::current().running()->claim.asked(kCancel), "interrupted without a reason");
  });
  add_canceller(schedule, fibers, waiter);
  schedule.run();
}

// Two threads cancel the same wait at once, one through a level and one for good; it is a wait for an object,
// or for an operation that never completes by itself. One of the two ends it.
void two_cancellers(Schedule& schedule) {
  Fibers fibers(schedule, 2);
  std::array<Ring, 2> rings;
  fibers.set_driver(0, rings[0]);
  fibers.set_driver(1, rings[1]);
  Permits never;
  schedule.name(never, "never");
  const bool waits_in_ring = choose(2) == 0;
  FiberBlock& waiter = fibers.add("waiter", [&] {
    if (waits_in_ring) {
      sched::Operation operation{.kind = sched::Operation::Kind::kReceive, .length = Ring::kNever};
      fibers.perform(operation, kCancel);
      check(operation.result != Ring::kSuccess, "an operation completed that never does");
    } else {
      check(!never.acquire(kCancel), "a permit came from nowhere");
    }
    check(Fibers::current().running()->claim.asked(kCancel), "interrupted without a reason");
  });
  add_canceller(schedule, fibers, waiter);
  fibers.take_reference(waiter);
  schedule.add("handle", [&] {
    WakeBatch batch;
    batch.request_end(waiter);
    batch.deliver();
    fibers.drop_reference(waiter);
  });
  schedule.run();
}

// A permit for each of two waiters, one of whom may be cancelled and comes again, and a request that
// comes twice.
void hand_over(Schedule& schedule) {
  Fibers fibers(schedule, 2);
  Permits permits;
  int got = 0;
  schedule.name(permits, "permits");
  FiberBlock& waiter = fibers.add("waiter", [&] {
    if (!permits.acquire(kCancel)) {
      FiberBlock& self = *Fibers::current().running();
      check(self.claim.asked(kCancel), "interrupted without a reason");
      self.claim.withdraw(kCancel);
      check(permits.acquire(0), "a wait that accepts nothing was interrupted");
    }
    ++got;
  });
  fibers.add("patient", [&] {
    check(permits.acquire(0), "a wait that accepts nothing was interrupted");
    ++got;
  });
  schedule.add("giver", [&] {
    permits.release();
    permits.release();
  });
  add_canceller(schedule, fibers, waiter, 2);
  schedule.run();
  check(got == 2 && permits.count() == 0, "a permit was lost");
}

// Waiters of both kinds, fibers and threads.
void foreign_waiter(Schedule& schedule) {
  Fibers fibers(schedule, 1);
  Permits permits;
  schedule.name(permits, "permits");
  FiberBlock& waiter = fibers.add("waiter", [&] {
    if (permits.acquire(kCancel)) permits.release();
  });
  schedule.add("thread", [&] { check(permits.acquire(0), "a thread was interrupted"); });
  schedule.add("giver", [&] { permits.release(); });
  add_canceller(schedule, fibers, waiter);
  schedule.run();
  check(permits.count() == 0, "a permit was lost");
}

// Something that happens once. Whoever returns last from wait() destroys it.
class Gate {
 public:
  bool wait() {
    // Open while the lock is held means that the opener is not through: it will touch the word again.
    if ((word_.load() & (kOpen | ObjectWord::kLocked)) == kOpen) return true;
    const std::uint64_t state = word_.lock();
    if ((state & kOpen) != 0) {
      word_.unlock(state);
      return true;
    }
    WaitNode node;
    return sched::wait(word_, state, node, kCancel);
  }

  void open() {
    WakeBatch batch;
    const std::uint64_t state = word_.lock();
    WaitList waiting(ObjectWord::waiters(state));
    while (WaitNode* node = waiting.claim_first()) batch.add(*node);
    word_.unlock(kOpen);
    batch.deliver();
  }

 private:
  static constexpr std::uint64_t kOpen = ObjectWord::kFlagA;
  ObjectWord word_;
};

void destroyed_by_the_woken(Schedule& schedule) {
  Fibers fibers(schedule, 2);
  Gate gate;
  int waiting = 2;
  bool opened = false;
  schedule.name(gate, "gate");
  const auto wait = [&] {
    if (gate.wait()) opened = true;
    if (--waiting == 0 && opened)
      retire(gate, "an object was touched after the wait on it returned");
  };
  FiberBlock& cancelled = fibers.add("waiter", wait);
  fibers.add("other waiter", wait);
  schedule.add("opener", [&] { gate.open(); });
  add_canceller(schedule, fibers, cancelled);
  schedule.run();
}

// One fiber that waits three times: for an object with a time limit, or for an operation. A waker, a
// timer and a canceller go for it, perhaps late, and the kernel.
class ThreeWaits {
 public:
  explicit ThreeWaits(Schedule& schedule) : fibers_(schedule, 2) {
    schedule.name(word_, "object");
    schedule.name(timers_lock_, "timers");
    fibers_.set_driver(0, rings_[0]);
    fibers_.set_driver(1, rings_[1]);
    fiber_ = &fibers_.add("waiter", [this] { wait_three_times(); });
    schedule.add("waker", [this] { wake(); });
    schedule.add("timer", [this] { time_out(); });
    add_canceller(schedule, fibers_, *fiber_, 2);
    for (Ring& ring : rings_) {
      schedule.add("kernel", [this, &ring] {
        while (ring.complete_one([this] { return fibers_.all_ended(); })) {
        }
      });
    }
  }

 private:
  static constexpr int kWaits = 3;

  struct Wait {
    ObjectWord* word;
    std::uint64_t state;
    ThreeWaits* self;
    int number;
  };

  void wait_three_times() {
    for (now_ = 0; now_ < kWaits; ++now_) {
      const bool asked_before = fiber_->claim.asked(kCancel);
      if (choose(2) == 0) {
        wait_for_object();
      } else {
        wait_for_operation();
      }
      if (asked_before) fiber_->claim.withdraw(kCancel);
    }
  }

  void wait_for_object() {
    const int number = now_;
    WaitNode node;
    node.fiber = fiber_;
    node.epoch = epochs_[static_cast<std::size_t>(number)] = fiber_->claim.epoch();
    const std::uint64_t state = word_.lock();
    WaitList waiting(ObjectWord::waiters(state));
    waiting.push_back(node);
    Wait wait{&word_, ObjectWord::with_waiters(state, waiting.first()), this, number};
    fibers_.leave(&commit_wait, &wait);
    if (!node.claimed) {
      const std::uint64_t again = word_.lock();
      WaitList still(ObjectWord::waiters(again));
      still.remove(node);
      word_.unlock(ObjectWord::with_waiters(again, still.first()));
    }
    timers_lock_.lock();
    armed_ = -1;
    timers_lock_.unlock();
    const bool timed_out = timed_out_[static_cast<std::size_t>(number)];
    check(!(node.claimed && timed_out), "two ended the same wait");
    check(node.claimed || timed_out || fiber_->claim.asked(kCancel),
          "a wait ended without a reason");
  }

  void wait_for_operation() {
    sched::Operation operation{.kind = sched::Operation::Kind::kReceive};
    fibers_.perform(operation, kCancel);
    for (const Ring& ring : rings_) ring.check_forgotten(operation);
    check(operation.result == Ring::kSuccess || fiber_->claim.asked(kCancel),
          "an operation was cancelled without a reason");
  }

  // Arms the timer and parks under the timers' lock, as a sleep does.
  static void commit_wait(sched::Worker& worker, FiberBlock& fiber, void* argument) {
    const Wait wait = *static_cast<Wait*>(argument);
    ThreeWaits& self = *wait.self;
    self.timers_lock_.lock();
    const bool parked = sched::ObjectPark::finish({wait.word, wait.state, kCancel}, fiber);
    if (parked) self.armed_ = wait.number;
    self.timers_lock_.unlock();
    if (!parked) worker.make_ready(fiber);
  }

  void wake() {
    for (int i = 0; i < 2; ++i) {
      WakeBatch batch;
      const std::uint64_t state = word_.lock();
      WaitList waiting(ObjectWord::waiters(state));
      if (WaitNode* node = waiting.claim_first()) batch.add(*node);
      word_.unlock(ObjectWord::with_waiters(state, waiting.first()));
      batch.deliver();
    }
  }

  // Looks under the lock, but claims after it: what it claims may be an earlier wait than the present.
  void time_out() {
    for (int i = 0; i < kWaits; ++i) {
      block_until([&] { return armed_ >= i || now_ > i; });
      timers_lock_.lock();
      const int armed = armed_;
      timers_lock_.unlock();
      if (armed < 0) continue;
      const auto number = static_cast<std::size_t>(armed);
      if (!fiber_->claim.claim(epochs_[number])) continue;
      timed_out_[number] = true;
      check(now_ == armed, "a timer ended a later wait than its own");
      fibers_.make_ready(*fiber_);
    }
  }

  Fibers fibers_;
  std::array<Ring, 2> rings_;
  FiberBlock* fiber_ = nullptr;
  ObjectWord word_;
  base::SpinLock timers_lock_;
  int armed_ = -1;  // which wait's timer is, under the lock
  int now_ = 0;     // the wait that the fiber is in
  std::array<std::uint32_t, kWaits> epochs_{};
  std::array<bool, kWaits> timed_out_{};
};

void three_waits(Schedule& schedule) {
  ThreeWaits waits(schedule);
  schedule.run();
}

// A request at any time in a fiber's life before its first wait, also while it gets its stack.
void cancel_at_the_start(Schedule& schedule) {
  Fibers fibers(schedule, 1);
  FiberBlock& fiber = fibers.add("fiber", [&] {
    FiberBlock& self = *Fibers::current().running();
    block_until([&] { return self.claim.asked(kCancel); });
  });
  add_canceller(schedule, fibers, fiber);
  schedule.run();
}

constexpr std::array kCases = {
    Case{"start", cancel_at_the_start, 20'000},
    Case{"cancel", cancel_alone, 20'000},
    Case{"hand over", hand_over, 100'000},
    Case{"foreign", foreign_waiter, 50'000},
    Case{"destroy", destroyed_by_the_woken, 100'000},
    Case{"three waits", three_waits, 100'000},
    Case{"two cancellers", two_cancellers, 40'000},
};

#ifndef WEFT_PLANT

TEST_CASE("park: each wait ends once, for a reason, and touches nothing afterwards",
          "[park][B5][B6][B8]") {
  REQUIRE(explore_cases("park", kCases).message == "");
}

#else

TEST_CASE("park: the planted bug is found", "[park][B5][B6]") {
  INFO("plant " << base::kPlant);
  const Result result = explore_cases("park", kCases, 10);
  REQUIRE(result.message != "");
  REQUIRE(result.schedules < 100'000);
}

#endif

}  // namespace
}  // namespace weft::model
