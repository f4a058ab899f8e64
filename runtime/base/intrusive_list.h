// A list and a queue threaded through their elements: no allocation, so nothing here can fail.
//
//   struct Waiter { base::ListNode<Waiter> node; Waiter* link = nullptr; };
//   base::IntrusiveList<Waiter, &Waiter::node> waiting;      // unlinks any element in O(1)
//   base::IntrusiveQueue<Waiter, &Waiter::link> ready;       // one pointer an element, FIFO
//   waiting.push_back(&w);
//   while (Waiter* first = waiting.pop_front()) ready.push(first);
//
// Requires: an element is in at most one container per node or link, and outlives its stay there.
//           Both types are plain data: whoever shares one between threads brings the lock.
// Promises: an element is not touched after it was handed out.
#pragma once

#include <cstddef>
#include <iterator>
#include <utility>

#include "runtime/base/check.h"

namespace weft::base {

// What an element of an IntrusiveList embeds. The ends of a list point to themselves, so that null
// means: in no list.
template <class T>
struct ListNode {
  ListNode() = default;
  ListNode(const ListNode&) = delete;
  ListNode& operator=(const ListNode&) = delete;

  [[nodiscard]] bool linked() const { return next != nullptr; }

  T* previous = nullptr;
  T* next = nullptr;
};

template <class T, ListNode<T> T::*Node>
class IntrusiveList {
 public:
  class Iterator {
   public:
    using iterator_category = std::forward_iterator_tag;
    using value_type = T;
    using difference_type = std::ptrdiff_t;
    using pointer = T*;
    using reference = T&;

    Iterator() = default;
    explicit Iterator(T* at) : at_(at) {}
    T& operator*() const { return *at_; }
    T* operator->() const { return at_; }
    Iterator& operator++() {
      at_ = after(at_);
      return *this;
    }
    Iterator operator++(int) {
      Iterator before = *this;
      ++*this;
      return before;
    }
    bool operator==(const Iterator&) const = default;

   private:
    T* at_ = nullptr;
  };

  IntrusiveList() = default;
  IntrusiveList(IntrusiveList&& other) noexcept
      : first_(std::exchange(other.first_, nullptr)), last_(std::exchange(other.last_, nullptr)) {}
  IntrusiveList& operator=(IntrusiveList&& other) noexcept {
    WEFT_DCHECK(empty(), "a list with elements was overwritten");
    first_ = std::exchange(other.first_, nullptr);
    last_ = std::exchange(other.last_, nullptr);
    return *this;
  }

  [[nodiscard]] bool empty() const { return first_ == nullptr; }
  [[nodiscard]] T* front() const { return first_; }
  [[nodiscard]] T* back() const { return last_; }

  // The element that the iterator stands on may be removed only after the iterator has left it.
  [[nodiscard]] Iterator begin() const { return Iterator(first_); }
  [[nodiscard]] Iterator end() const { return Iterator(); }

  void push_back(T* element) {
    ListNode<T>& node = element->*Node;
    WEFT_DCHECK(!node.linked(), "pushed into a second list");
    node.next = element;
    if (last_ == nullptr) {
      node.previous = element;
      first_ = element;
    } else {
      node.previous = last_;
      (last_->*Node).next = element;
    }
    last_ = element;
  }

  void push_front(T* element) {
    ListNode<T>& node = element->*Node;
    WEFT_DCHECK(!node.linked(), "pushed into a second list");
    node.previous = element;
    if (first_ == nullptr) {
      node.next = element;
      last_ = element;
    } else {
      node.next = first_;
      (first_->*Node).previous = element;
    }
    first_ = element;
  }

  // The next element, or null behind the last. Requires: `element` is in a list.
  static T* after(const T* element) {
    T* const next = (element->*Node).next;
    return next == element ? nullptr : next;
  }

  // Null when the list is empty.
  T* pop_front() {
    T* element = first_;
    if (element != nullptr) remove(element);
    return element;
  }

  // Unlinks the element; returns false, and does nothing, if it is in no list.
  bool remove(T* element) {
    ListNode<T>& node = element->*Node;
    if (!node.linked()) return false;
    T* const previous = node.previous == element ? nullptr : node.previous;
    T* const next = node.next == element ? nullptr : node.next;
    if (previous == nullptr) {
      WEFT_DCHECK(first_ == element, "removed from a list that it is not in");
      first_ = next;
    } else {
      (previous->*Node).next = next == nullptr ? previous : next;
    }
    if (next == nullptr) {
      WEFT_DCHECK(last_ == element, "removed from a list that it is not in");
      last_ = previous;
    } else {
      (next->*Node).previous = previous == nullptr ? next : previous;
    }
    node.previous = nullptr;
    node.next = nullptr;
    return true;
  }

 private:
  T* first_ = nullptr;
  T* last_ = nullptr;
};

// Link is a member of T that holds a T*. Elements do not know whether they are queued: their link
// may serve several queues in turn, and its value outside a queue means nothing.
template <class T, auto Link>
class IntrusiveQueue {
 public:
  IntrusiveQueue() = default;
  IntrusiveQueue(IntrusiveQueue&& other) noexcept
      : first_(std::exchange(other.first_, nullptr)), last_(std::exchange(other.last_, nullptr)) {}
  IntrusiveQueue& operator=(IntrusiveQueue&& other) noexcept {
    WEFT_DCHECK(empty(), "a queue with elements was overwritten");
    first_ = std::exchange(other.first_, nullptr);
    last_ = std::exchange(other.last_, nullptr);
    return *this;
  }

  [[nodiscard]] bool empty() const { return first_ == nullptr; }
  [[nodiscard]] T* front() const { return first_; }

  void push(T* element) {
    element->*Link = nullptr;
    if (first_ == nullptr) {
      first_ = element;
    } else {
      last_->*Link = element;
    }
    last_ = element;
  }

  // For queues that are built back to front.
  void push_front(T* element) {
    element->*Link = first_;
    if (first_ == nullptr) last_ = element;
    first_ = element;
  }

  // Null when the queue is empty.
  T* pop() {
    T* element = first_;
    if (element == nullptr) return nullptr;
    first_ = element->*Link;
    if (first_ == nullptr) last_ = nullptr;
    return element;
  }

  // Moves everything in `other` behind what is here, in order.
  void splice(IntrusiveQueue& other) {
    if (other.empty()) return;
    if (first_ == nullptr) {
      first_ = other.first_;
    } else {
      last_->*Link = other.first_;
    }
    last_ = other.last_;
    other.first_ = nullptr;
    other.last_ = nullptr;
  }

  // Walks the whole queue.
  [[nodiscard]] std::size_t count() const {
    std::size_t elements = 0;
    for (T* at = first_; at != nullptr; at = at->*Link) ++elements;
    return elements;
  }

 private:
  T* first_ = nullptr;
  T* last_ = nullptr;
};

}  // namespace weft::base
