// ReadyQueue: one worker's woken and yielding fibers, first in, first out, for all who take.
//
//   base::ReadyQueue<Fiber, FiberPrefetch> ready;
//   if (!ready.push(f)) injection.push(f);           // no memory to grow: a list never fails
//   Fiber* next = ready.pop();                       // and what comes after it is on its way
//   unsigned n = victim.ready.steal(loot, 32);
//
// An array and not a list, because an array can look ahead: with 100,000 fibers every control block
// and every stack is a cache miss, and loads begun a few fibers early halve the price of a switch.
//
// Requires: push, pop, publish_seq_cst from the owner only; no element is null.
// Promises: each pushed element is handed out once, with all that was written before its push.
//           steal takes at most half (rounded up) of what was there, whole or not at all.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "arch/x86_64/cpu.h"
#include "runtime/base/atomic.h"
#include "runtime/base/plant.h"
#include "runtime/base/slot_array.h"

namespace weft::base {

// The default look-ahead: none. A policy's functions see elements that are still in the queue, and
// a thief may take one, run it and free it meanwhile: they may prefetch its address, and may read
// from it only if its memory is never given back and what they read is atomic.
struct NoPrefetch {
  static void far_ahead(const void*) {}   // five elements ahead: bring in the element itself
  static void near_ahead(const void*) {}  // two elements ahead: bring in what it points to
};

template <class T, class Prefetch = NoPrefetch>
class ReadyQueue {
 public:
  using Index = typename SlotArray<T>::Index;

  // Tests start the indices just below a wrap. Throws std::bad_alloc.
  explicit ReadyQueue(std::size_t capacity = 256, Index start = 0)
      : head_(start), tail_(start), slots_(capacity), limit_(start + slots_.capacity()) {}

  // Returns false, with nothing changed, when there is no memory to grow.
  // Call from: the owner. Never parks.
  [[nodiscard]] bool push(T* element) {
    const Index tail = tail_.load(std::memory_order_relaxed);  // relaxed: only we write it.
    if (tail == limit_) [[unlikely]] {
      return push_slowly(element);
    }
    store(tail, element);
    return true;
  }

  // Takes the oldest; null when empty. Call from: the owner. Never parks.
  [[nodiscard]] T* pop() {
    const Index tail = tail_.load(std::memory_order_relaxed);  // relaxed: only we write it.
    // relaxed: a stale head makes the CAS fail, and slots and elements are our own writes.
    Index head = head_.load(std::memory_order_relaxed);
    while (head != tail) {
      T* element = slots_.get(head);
      if (claim_first(head)) {
        look_ahead(head, tail);
        return element;
      }
    }
    return nullptr;
  }

  // The same for an owner whom nobody robs, ever: no RMW. Call from: the owner. Never parks.
  [[nodiscard]] T* pop_unshared() {
    // relaxed: only we read and write either index.
    const Index tail = tail_.load(std::memory_order_relaxed);
    const Index head = head_.load(std::memory_order_relaxed);
    if (head == tail) return nullptr;
    head_.store(head + 1, std::memory_order_relaxed);
    look_ahead(head, tail);
    return slots_.get(head);
  }

  // Takes the oldest: half of what is there, rounded up, at most `max`. Returns how many.
  // Call from: any thread but the owner. Never parks.
  [[nodiscard]] unsigned steal(T** out, unsigned max) {
    // relaxed: a head that is stale makes the CAS fail; the tail brings the slots.
    Index head = head_.load(std::memory_order_relaxed);
    while (true) {
      // acquire: [slot] every slot below this tail is visible.
      const Index tail = tail_.load(std::memory_order_acquire);
      // The head may be newer than the tail: then there is nothing to take.
      const auto size = static_cast<std::int64_t>(tail - head);
      if (size <= 0) return 0;
      const auto half = static_cast<Index>(size) / 2 + (planted(7) ? 2 : size % 2);
      const auto share = static_cast<unsigned>(std::min<Index>(half, max));
      const auto slots = slots_.current();
      for (unsigned i = 0; i < share; ++i) out[i] = slots.get(head + i);
      if constexpr (planted(5)) {
        const Index now = head_.load(std::memory_order_relaxed);
        if (now % 2 == head % 2) head = now;
      }
      // [claim] If the head has not moved, the slots were ours to read. release: [reuse] our reads
      // come before push() writes the slots again. relaxed on failure: what we read is dropped.
      if (head_.compare_exchange_strong(head, head + share, std::memory_order_release,
                                        std::memory_order_relaxed)) {
        return share;
      }
    }
  }

  // A hint for any thread; exact for the owner while nobody steals.
  [[nodiscard]] std::size_t size() const {
    // relaxed: a hint. The head first, so that a size is rather too large than negative.
    const Index head = head_.load(std::memory_order_relaxed);
    const auto size = static_cast<std::int64_t>(tail_.load(std::memory_order_relaxed) - head);
    return size > 0 ? static_cast<std::size_t>(size) : 0;
  }
  [[nodiscard]] bool empty() const { return size() == 0; }

  // [sleep] The waker's half: after it, whoever announces sleep and then calls empty_seq_cst() sees
  // all that was pushed, or else the caller sees the announcement by a seq_cst load. A seq_cst RMW
  // on some other word would not do: it is this one that the sleeper reads.
  // Call from: the owner, between push() and its look at the sleep words.
  void publish_seq_cst() {
    tail_.exchange(tail_.load(std::memory_order_relaxed), std::memory_order_seq_cst);
  }

  // [sleep] The sleeper's half.
  // Call from: any thread, after it announced its sleep by a seq_cst RMW.
  [[nodiscard]] bool empty_seq_cst() const {
    const Index head = head_.load(std::memory_order_seq_cst);
    return static_cast<std::int64_t>(tail_.load(std::memory_order_seq_cst) - head) <= 0;
  }

 private:
  static constexpr Index kFarAhead = 5;
  static constexpr Index kNearAhead = 2;

  // [claim] Takes the element at `head`, or reloads `head`.
  bool claim_first(Index& head) {
    if constexpr (planted(4)) {
      head_.store(head + 1, std::memory_order_relaxed);
      return true;
    }
    Index expected = head;
    // relaxed: we read our own writes, and as an RMW it continues the release sequence of the
    // thieves' claims, which push_slowly() acquires.
    const bool claimed = head_.compare_exchange_weak(expected, head + 1, std::memory_order_relaxed,
                                                     std::memory_order_relaxed);
    if (!claimed) head = expected;
    return claimed;
  }

  void look_ahead(Index head, Index tail) const {
    const Index size = tail - head;
    if (size > kFarAhead) Prefetch::far_ahead(slots_.get(head + kFarAhead));
    if (size > kNearAhead) Prefetch::near_ahead(slots_.get(head + kNearAhead));
  }

  void store(Index tail, T* element) {
    slots_.set(tail, element);
    // [slot] publishes the slot and what the element points to; pairs with steal().
    tail_.store(tail + 1, std::memory_order_release);
  }

  // The queue was full when we last looked at the head.
  [[gnu::noinline]] bool push_slowly(T* element) {
    const Index tail = tail_.load(std::memory_order_relaxed);  // relaxed: only we write it.
    // acquire: [reuse] thieves have read the slots below this head before we write them again.
    const Index head = head_.load(std::memory_order_acquire);
    if (tail - head == slots_.capacity() && !slots_.grow(head, tail)) return false;
    limit_ = head + slots_.capacity();
    if constexpr (planted(43)) return true;
    store(tail, element);
    return true;
  }

  // [slot] push() fills a slot and stores tail_ with release; steal() loads tail_ with acquire.
  // [claim] Whoever raises head_ by a CAS owns the elements that it passed.
  // [reuse] A thief reads slots, raises head_ with release; push_slowly() loads it with acquire.
  alignas(arch::kCacheLine) Atomic<Index> head_;  // Any thread, CAS only; it never falls.
  alignas(arch::kCacheLine) Atomic<Index> tail_;  // Written by the owner only.
  SlotArray<T> slots_;
  Index limit_;  // The owner's: it must look at the head again before it fills this slot.
};

}  // namespace weft::base
