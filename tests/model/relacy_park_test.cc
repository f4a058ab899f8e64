// Parking, waking and cancelling under weak memory: park.cc, level.cc, operation_wait.cc, wake_batch.cc and
// the words as they ship. Whoever resumes a fiber has seen it leave, a waiter sees what its waker did, an
// interrupted one sees why, and a block is used again by somebody who has seen its last user go. The
// interleavings of a strong machine are the business of park_test.cc and ring_test.cc.
#include <cerrno>

#include <catch2/catch.hpp>

#include "runtime/base/spin_lock.h"
#include "runtime/sched/group.h"
#include "runtime/sched/level.h"
#include "runtime/sched/operation_wait.h"
#include "runtime/sched/park.h"
#include "tests/model/relacy_explore.h"
#include "tests/model/relacy_fibers.h"

namespace weft::relacy {
namespace {

using sched::Interruption;
using sched::kCancel;
using sched::ObjectWord;
using sched::Operation;
using sched::WaitList;
using sched::WaitNode;
using sched::WakeBatch;

// A flag that is set once, and what was done before it was.
class Gate {
 public:
  // Whether it is open; if not, one of `accepts` was asked.
  bool wait(unsigned accepts) {
    if ((word_.load() & (kOpen | ObjectWord::kLocked)) == kOpen) return true;
    const std::uint64_t state = word_.lock();
    under_lock_.write();
    if ((state & kOpen) != 0) {
      word_.unlock(state);
      return true;
    }
    WaitNode node;
    return sched::wait(word_, state, node, accepts);
  }

  void open() {
    WakeBatch batch;
    const std::uint64_t state = word_.lock();
    under_lock_.write();
    before_.write();
    WaitList waiting(ObjectWord::waiters(state));
    while (WaitNode* node = waiting.claim_first()) batch.add(*node);
    word_.unlock(kOpen);
    batch.deliver();
  }

  // Call from: who has found it open.
  void look() const { RL_ASSERT(before_.value() == 1); }

 private:
  static constexpr std::uint64_t kOpen = ObjectWord::kFlagA;
  ObjectWord word_;
  Handed under_lock_;
  Handed before_;
};

// A waiter, whoever opens the gate, and whoever cancels the waiter.
template <bool kCancelled>
class GateTest : public rl::test_suite<GateTest<kCancelled>, kCancelled ? 3 : 2> {
 public:
  void thread(unsigned index) {
    if (index == 0) wait();
    if (index == 1) gate_.open();
    if (index == 2) cancel();
  }

 private:
  void wait() {
    fibers_.become(&fiber_);
    level_.enter(fiber_.block);
    if (gate_.wait(kCancel)) return gate_.look();
    why_.read();
    RL_ASSERT(level_.raised() == Interruption::kCancelled);
  }

  void cancel() {
    why_.write();
    level_.raise(Interruption::kCancelled);
    request(fiber_.block, kCancel);
  }

  Fibers fibers_;
  Fiber fiber_;
  Gate gate_;
  sched::Level level_;
  Handed why_;
};

// A thread that is no fiber waits, too.
class ForeignTest : public rl::test_suite<ForeignTest, 2> {
 public:
  void thread(unsigned index) {
    if (index == 1) return gate_.open();
    gate_.wait(0);
    gate_.look();
  }

 private:
  Fibers fibers_;
  Gate gate_;
};

// Nobody gives anything: the request alone ends the wait, or is found by one that looks without parking.
template <bool kParks>
class CancelTest : public rl::test_suite<CancelTest<kParks>, 2> {
 public:
  void thread(unsigned index) {
    if (index == 1) {
      level_.raise(Interruption::kCancelled);
      why_.write();
      return request(fiber_.block, kCancel);
    }
    fibers_.become(&fiber_);
    level_.enter(fiber_.block);
    if constexpr (kParks) {
      RL_ASSERT(!never_.wait(kCancel));  // and no look at the word: as Group::join()
    } else {
      while (!fiber_.block.claim.asked(kCancel)) base::spin_hint();
    }
    why_.read();
    RL_ASSERT(level_.raised() == Interruption::kCancelled);
  }

 private:
  Fibers fibers_;
  Fiber fiber_;
  Gate never_;
  sched::Level level_;
  Handed why_;
};

// A flag alone says why, to one that looks at its levels before it is asked anything.
class RaiseTest : public rl::test_suite<RaiseTest, 2> {
 public:
  void thread(unsigned index) {
    if (index == 1) {
      why_.write();
      level_.raise(Interruption::kDeadlineExceeded);
      return;
    }
    level_.enter(fiber_.block);
    while (level_.raised() == Interruption::kNone) base::spin_hint();
    why_.read();
  }

 private:
  Fiber fiber_;
  sched::Level level_;
  Handed why_;
};

// Two levels; the inner one is left, raised or not, and the outer one is not forgotten by that.
class TwoLevelsTest : public rl::test_suite<TwoLevelsTest, 3> {
 public:
  void thread(unsigned index) {
    if (index == 1) {
      outer_.raise(Interruption::kCancelled);
      return request(fiber_.block, kCancel);
    }
    if (index == 2) return expire_inner();
    fibers_.become(&fiber_);
    fiber_.block.group = &group_;
    outer_.enter(fiber_.block);
    inner_.enter(fiber_.block);
    lock_.lock();
    left_ = true;
    lock_.unlock();
    inner_.leave();
    RL_ASSERT(!never_.wait(kCancel));
    RL_ASSERT(outer_.raised() == Interruption::kCancelled);
  }

 private:
  void expire_inner() {
    WakeBatch batch;
    lock_.lock();
    if (!left_ && inner_.raise(Interruption::kDeadlineExceeded)) {
      batch.request(fiber_.block, kCancel);
    }
    lock_.unlock();
    batch.deliver();
  }

  Fibers fibers_;
  sched::Group group_{nullptr, nullptr, {}};
  Fiber fiber_;
  Gate never_;
  base::SpinLock lock_;
  bool left_ = false;
  sched::Level outer_;
  sched::Level inner_;
};

// The ring of the worker that runs the fiber: it completes what is cancelled.
class Ring : public sched::IoDriver {
 public:
  void prepare(Operation& operation) override { batch_ = &operation; }
  bool withdraw(Operation&) override { return submitted_ ? false : (batch_ = nullptr, true); }
  void cancel(Operation& operation) override { cancelled_ = &operation; }
  unsigned prepared() const override { return 0; }
  bool completions_waiting() const override { return cancelled_ != nullptr; }
  void poll(WakeBatch& batch) override {
    if (cancelled_ == nullptr) return;
    cancelled_->result = -ECANCELED;
    cancelled_->fiber->claim.complete();
    batch.add(*cancelled_->fiber);
    cancelled_ = nullptr;
  }
  void wait(std::int64_t, std::int64_t, WakeBatch&) override {}
  void ring_doorbell() override {}
  void leave_thread() override {}
  std::size_t in_flight() const override { return 0; }
  std::uint64_t kernel_entries() const override { return 0; }
  void submit() { submitted_ = true; }

 private:
  Operation* batch_ = nullptr;
  Operation* cancelled_ = nullptr;
  bool submitted_ = false;
};

// An operation that only a cancel ends; the kernel has it already, or it is in the batch.
template <bool kSubmitted>
class OperationTest : public rl::test_suite<OperationTest<kSubmitted>, 2> {
 public:
  void thread(unsigned index) {
    if (index == 1) {
      why_.write();
      WakeBatch batch;
      batch.request(fiber_.block, kCancel);
      return batch.deliver();
    }
    fibers_.become(&fiber_);
    fibers_.set_tend([this] { tend(); });
    Operation operation{.kind = Operation::Kind::kReceive};
    operation.fiber = &fiber_.block;
    operation.accepts = kCancel;
    fiber_.frame.operation = &operation;
    ring_.prepare(operation);
    if (kSubmitted) ring_.submit();
    current_ = this;
    sched::Worker::leave(
        [](sched::Worker&, sched::FiberBlock& block, void* of) {
          if (!sched::park_on_operation(*static_cast<Operation*>(of), block, current_->ring_, 0)) {
            current_->fibers_.make_ready(block);
          }
        },
        &operation);
    RL_ASSERT(operation.result == -ECANCELED);
    RL_ASSERT(fiber_.block.claim.asked(kCancel));
    why_.read();
  }

 private:
  void tend() {
    auto messages = fibers_.take_messages();
    while (sched::FiberBlock* block = messages.pop()) sched::receive_message(*block, ring_, 0);
    WakeBatch batch;
    ring_.poll(batch);
    batch.deliver();
  }

  inline static OperationTest* current_ = nullptr;
  Fibers fibers_;
  Fiber fiber_;
  Ring ring_;
  Handed why_;
};

// A block that is freed while a message about it is on its way. Its fiber's last wait was completed by
// the message's receiver, and ends on another worker.
class FreeTest : public rl::test_suite<FreeTest, 2> {
 public:
  void before() {
    block_.begin(0);
    RL_ASSERT(block_.park_in_ring(kCancel, 0));
    RL_ASSERT(block_.request(kCancel).outcome == sched::ClaimWord::Outcome::kMessage);
  }

  void thread(unsigned index) {
    if (index == 0) {
      block_.complete();
      ready_.store(1, std::memory_order_release);
      link_.read();  // the message is taken from the inbox
      if (block_.receive(0).message == sched::ClaimWord::Message::kRelease) give_back();
    } else {
      while (ready_.load(std::memory_order_acquire) == 0) base::spin_hint();
      life_.write();
      if (block_.free()) give_back();
    }
  }

  void after() { RL_ASSERT(given_back_ == 1); }

 private:
  void give_back() {
    ++given_back_;
    life_.write();
    link_.write();
  }

  sched::ClaimWord block_;
  base::Atomic<int> ready_{0};
  Handed life_;
  Handed link_;
  int given_back_ = 0;
};

// A block is freed, and somebody who looks at all blocks sees what its fiber left.
class WalkTest : public rl::test_suite<WalkTest, 2> {
 public:
  void before() { block_.begin(0); }

  void thread(unsigned index) {
    if (index == 0) {
      end_.write();
      RL_ASSERT(block_.free());
    } else if (block_.load().state() == sched::FiberState::kFree) {
      end_.read();
    }
  }

 private:
  sched::ClaimWord block_;
  Handed end_;
};

TEST_CASE("relacy: what is handed over with a wake is seen", "[park][B11]") {
  REQUIRE(explore_randomly<GateTest<false>>(50'000));
  REQUIRE(explore_randomly<GateTest<true>>(50'000));
}

TEST_CASE("relacy: a thread that is no fiber sees what its waker did", "[foreign][B11]") {
  REQUIRE(explore_randomly<ForeignTest>(50'000));
}

TEST_CASE("relacy: who is cancelled sees why", "[cancel][B11]") {
  REQUIRE(explore_randomly<CancelTest<true>>(50'000));
  REQUIRE(explore_randomly<CancelTest<false>>(20'000));
  REQUIRE(explore_randomly<RaiseTest>(20'000));
}

TEST_CASE("relacy: a level that is left hides no outer one", "[level][B11]") {
  REQUIRE(explore_randomly<TwoLevelsTest>(100'000));
}

TEST_CASE("relacy: an operation that is cancelled ends", "[ring][B11]") {
  REQUIRE(explore_randomly<OperationTest<false>>(50'000));
  REQUIRE(explore_randomly<OperationTest<true>>(50'000));
}

TEST_CASE("relacy: a block is freed after its last user", "[free][B11]") {
  REQUIRE(explore_randomly<FreeTest>(50'000));
  REQUIRE(explore_randomly<WalkTest>(20'000));
}

}  // namespace
}  // namespace weft::relacy
