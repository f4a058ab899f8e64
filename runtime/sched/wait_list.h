// WaitNode and WaitList: who waits for an object, first come first served.
//
//   std::uint64_t state = word.lock();
//   WaitList waiting(ObjectWord::waiters(state));
//   WaitNode* first = waiting.claim_first();     // claimed: it resumes for this and for nothing else
//   if (first != nullptr) first->item = value;   // handed over with the claim
//   word.unlock(ObjectWord::with_waiters(state, waiting.first()));
//   if (first != nullptr) ready.add(first);      // rung only after the object's lock is given back
//
// Requires: a list is changed under its object's lock alone. A node is on its waiter's stack.
// Promises: a node that was claimed is off the list; a waiter that resumes unclaimed takes its own node
// off, under the lock, if nobody has done so before.
#pragma once

#include <cstdint>

#include "runtime/sched/fiber.h"

namespace weft::sched {

struct ForeignWaiter;

struct WaitNode {
  WaitNode* next = nullptr;  // a ring: the first node's prev is the last
  WaitNode* prev = nullptr;
  FiberBlock* fiber = nullptr;       // null for a thread that is not a fiber
  ForeignWaiter* foreign = nullptr;  // that thread's record, or null
  std::uint32_t epoch = 0;           // of the fiber's wait; a wake for an earlier one misses
  bool claimed = false;              // written by the waker under the object's lock
  std::uint64_t item = 0;            // what the waker hands over, in the object's own coding
};

class WaitList {
 public:
  explicit WaitList(WaitNode* first) : first_(first) {}

  WaitNode* first() const { return first_; }

  void push_back(WaitNode& node) {
    if (first_ == nullptr) {
      node.next = node.prev = &node;
      first_ = &node;
      return;
    }
    node.next = first_;
    node.prev = first_->prev;
    node.prev->next = &node;
    first_->prev = &node;
  }

  // Takes `node` off if it is on the list. Call from: under the lock.
  void remove(WaitNode& node) {
    if (node.next == nullptr) return;
    if (node.next == &node) {
      first_ = nullptr;
    } else {
      node.prev->next = node.next;
      node.next->prev = node.prev;
      if (first_ == &node) first_ = node.next;
    }
    node.next = node.prev = nullptr;
  }

  // Takes nodes off from the front until one can be claimed; null when there is none. Waiters that
  // were cancelled meanwhile are skipped: they resume by themselves.
  WaitNode* claim_first() {
    while (first_ != nullptr) {
      WaitNode& node = *first_;
      remove(node);
      if (node.fiber == nullptr || node.fiber->claim.claim(node.epoch)) {
        node.claimed = true;
        return &node;
      }
    }
    return nullptr;
  }

 private:
  WaitNode* first_;
};

}  // namespace weft::sched
