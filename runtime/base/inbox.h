// Inbox: messages from any thread to one worker, in the order in which they were sent.
//
//   base::Inbox<Fiber, &Fiber::message_link> inbox;
//   inbox.push(f);                                   // any thread; then ring the worker
//   auto messages = inbox.take_all();                // the worker
//   while (Fiber* f = messages.pop()) handle(f);
//
// Senders stack their messages by one CAS; the receiver takes the whole stack and turns it round.
// As it never takes one message alone, a head that comes back (ABA) harms nobody.
//
// Requires: a message in an inbox is in no other through the same link; one receiver.
// Promises: first in, first out; each message arrives once, with all that was written before it.
#pragma once

#include "arch/x86_64/cpu.h"
#include "runtime/base/atomic.h"
#include "runtime/base/intrusive_list.h"
#include "runtime/base/plant.h"

namespace weft::base {

template <class T, auto Link>
class Inbox {
 public:
  // Returns whether the inbox was empty, so that of several senders one can be the one who rings.
  // Call from: any thread. Never parks.
  bool push(T* message) {
    // relaxed: the CAS checks it.
    T* head = head_.load(std::memory_order_relaxed);
    while (true) {
      message->*Link = head;
      if constexpr (planted(9)) {
        head_.store(message, std::memory_order_seq_cst);
        return head == nullptr;
      }
      // [message] publishes the message and its link; pairs with take_all(). seq_cst for [sleep].
      // relaxed on failure: we only try again.
      if (head_.compare_exchange_weak(head, message, std::memory_order_seq_cst,
                                      std::memory_order_relaxed)) {
        return head == nullptr;
      }
    }
  }

  // Call from: the owner. Never parks.
  [[nodiscard]] IntrusiveQueue<T, Link> take_all() {
    IntrusiveQueue<T, Link> messages;
    // relaxed: a hint that saves the exchange; the owner asks empty_seq_cst() before it sleeps.
    if (head_.load(std::memory_order_relaxed) == nullptr) return messages;
    // acquire: [message] all stacked messages and their links are visible: each push is an RMW on
    // what the one before it released.
    T* message = head_.exchange(nullptr, std::memory_order_acquire);
    while (message != nullptr) {
      T* older = message->*Link;
      messages.push_front(message);
      message = older;
    }
    return messages;
  }

  // A hint. Call from: any thread.
  [[nodiscard]] bool empty() const { return head_.load(std::memory_order_relaxed) == nullptr; }

  // [sleep] The sleeper's half.
  // Call from: the owner, after it announced its sleep by a seq_cst RMW.
  [[nodiscard]] bool empty_seq_cst() const {
    return head_.load(std::memory_order_seq_cst) == nullptr;
  }

 private:
  // [message] push() puts a message on top with release; take_all() takes all with acquire.
  // [sleep] push() is a seq_cst RMW, after which the sender loads the receiver's sleep word; the
  // receiver changes that word by a seq_cst RMW and then loads this: at least one sees the other.
  alignas(arch::kCacheLine) Atomic<T*> head_{nullptr};
};

}  // namespace weft::base
