// Fibers over relacy: the core that park.cc, ending.cc and their like are linked with, as they ship.
//
//   class Test : public rl::test_suite<Test, 2> {
//     void thread(unsigned index) {
//       if (index == 0) fibers_.become(&waiter_);      // and call wait() and the like
//       else ...                                       // a thread that is no fiber: a waker, a canceller
//     }
//     relacy::Fibers fibers_;  relacy::Fiber waiter_;
//   };
//
// A thread that runs a fiber is the fiber, and whatever worker runs it: it does the commit step when the
// fiber has left, and waits until somebody has made it runnable. Between a waker and the fiber stands a
// queue, as always: a release, and an acquire. What the *saved registers* need is checked besides: who
// makes a fiber runnable plays the worker that will switch to it, and so must have seen it leave.
//
// Requires: one object for each iteration, made before the fibers.
// Promises: an iteration fails when what a fiber left behind was not handed over with it, and, as a
// livelock, when a fiber is never made runnable.
#pragma once

#include <array>
#include <functional>

#include "runtime/base/inbox.h"
#include "runtime/sched/fiber.h"
#include "runtime/sched/foreign_waiter.h"
#include "runtime/sched/level.h"
#include "runtime/sched/wake_batch.h"
#include "runtime/sched/worker.h"
#include "tests/model/relacy_explore.h"

namespace weft::relacy {

// Plain data that a protocol hands over.
class Handed {
 public:
  void write() { value_(rl::debug_info()).store(value_(rl::debug_info()).load() + 1); }
  void read() const { RL_ASSERT(value_(rl::debug_info()).load() >= 0); }
  int value() const { return value_(rl::debug_info()).load(); }

 private:
  rl::var<int> value_{0};
};

struct Fiber {
  Fiber() {
    block.frame = &frame;
    block.claim.begin(0);
  }

  sched::FiberBlock block;
  sched::FiberFrame frame;
  Handed registers;                       // on its stack, while it is away
  base::Atomic<std::uint32_t> queued{0};  // the queue that it is in
};

class Fibers {
 public:
  Fibers() { current_ = this; }
  ~Fibers() { current_ = nullptr; }
  static Fibers& current() { return *current_; }

  // The calling thread is `fiber` from here on, or none.
  void become(Fiber* fiber) { by_thread_[rl::thread_index()] = fiber; }
  Fiber* running() const { return by_thread_[rl::thread_index()]; }
  // What a worker does besides, while it waits for the fiber: it tends its ring.
  void set_tend(std::function<void()> tend) { tend_ = std::move(tend); }
  auto take_messages() { return messages_.take_all(); }

  // What the runtime's own names come to here.
  void leave(sched::Worker::Commit commit, void* argument);
  void make_ready(sched::FiberBlock& block);
  void send_message(sched::FiberBlock& block) { messages_.push(&block); }
  sched::ForeignWaiter& foreign_waiter() { return foreign_[rl::thread_index()]; }

 private:
  static constexpr unsigned kThreadsMax = 4;

  inline static Fibers* current_ = nullptr;
  std::array<Fiber*, kThreadsMax> by_thread_{};
  std::array<sched::ForeignWaiter, kThreadsMax> foreign_;
  base::Inbox<sched::FiberBlock, &sched::FiberBlock::message_link> messages_;
  std::function<void()> tend_;
};

// Asks, and delivers what follows.
void request(sched::FiberBlock& block, sched::Request what);

}  // namespace weft::relacy
