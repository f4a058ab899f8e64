// WakeBatch: fibers claimed, and fibers to be looked at by a ring's owner, collected under a lock and
// passed on after it.
//
//   WakeBatch batch;
//   { std::lock_guard hold(lock); batch.request(fiber, kCancel); }
//   batch.deliver();               // no doorbell is rung while an object's lock is held
//
// Requires: deliver() is called before destruction, with no object's lock held.
#pragma once

#include "runtime/base/check.h"
#include "runtime/base/intrusive_list.h"
#include "runtime/sched/fiber.h"
#include "runtime/sched/foreign_waiter.h"
#include "runtime/sched/switch_hooks.h"
#include "runtime/sched/wait_list.h"

namespace weft::sched {

class WakeBatch {
 public:
  WakeBatch() = default;
  WakeBatch(const WakeBatch&) = delete;
  WakeBatch& operator=(const WakeBatch&) = delete;
  ~WakeBatch() { WEFT_DCHECK(empty(), "a batch of wakes was not delivered"); }

  // A fiber that the caller has claimed. Call from: any thread.
  void add(FiberBlock& fiber) { ready_.push(&fiber); }

  // A waiter that the caller has claimed, fiber or foreign thread.
  void add(WaitNode& node) {
    if (node.fiber != nullptr) return add(*node.fiber);
    // The record and not the node: the node is on a stack that may be gone before deliver().
    node.foreign->next = foreign_;
    foreign_ = node.foreign;
  }

  // Asks something of a fiber and keeps what follows from it.
  void request(FiberBlock& fiber, Request what);
  // The same for the fiber as a whole: what its own handle asks.
  void request_end(FiberBlock& fiber);

  // Claims everybody on a list, under its object's lock.
  void add_all(WaitList waiting) {
    while (WaitNode* node = waiting.claim_first()) add(*node);
  }

  // Takes a claimed fiber out again, for a worker that puts it into its own queue; null: none left.
  FiberBlock* take_ready() {
    FiberBlock* fiber = ready_.pop();
    // Here and not where it was claimed: the unlock of the object comes in between.
    if (fiber != nullptr) happens_before(fiber);
    return fiber;
  }

  // Makes the fibers runnable and sends the messages. Call from: any thread. Never parks.
  void deliver();

  bool empty() const { return ready_.empty() && messages_.empty() && foreign_ == nullptr; }

 private:
  void keep(FiberBlock& fiber, ClaimWord::Requested requested);

  base::IntrusiveQueue<FiberBlock, &FiberBlock::link> ready_;
  base::IntrusiveQueue<FiberBlock, &FiberBlock::message_link> messages_;
  ForeignWaiter* foreign_ = nullptr;
};

}  // namespace weft::sched
