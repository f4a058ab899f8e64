// SpawnDeque: one worker's unstarted fibers. The owner takes the youngest, thieves the oldest.
//
//   base::SpawnDeque<Fiber> unstarted;
//   if (!unstarted.push(f)) injection.push(f);       // no memory to grow: a list never fails
//   Fiber* next = unstarted.pop();                   // the youngest: a tree of spawns stays small
//   Fiber* loot[32];
//   unsigned n = victim.unstarted.steal(loot, 32);   // the oldest: the roots of large subtrees
//
// The deque of Chase and Lev, growable. The owner pushes and pops at the bottom, thieves take one
// at a time at the top. Only when one element is left do both want the same one, and then a CAS on
// the top decides; all else rests on the [take] argument below.
//
// Requires: push, pop, pop_oldest, publish_seq_cst from the owner only; no element is null.
// Promises: each pushed element is handed out once, with all that was written before its push.
//           steal takes at most half (rounded up) of what it found.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "arch/x86_64/cpu.h"
#include "runtime/base/atomic.h"
#include "runtime/base/plant.h"
#include "runtime/base/slot_array.h"

namespace weft::base {

template <class T>
class SpawnDeque {
 public:
  using Index = typename SlotArray<T>::Index;

  // Tests start the indices just below a wrap. Throws std::bad_alloc.
  explicit SpawnDeque(std::size_t capacity = 256, Index start = 0)
      : top_(start), bottom_(start), slots_(capacity), limit_(start + slots_.capacity()) {}

  // Returns false, with nothing changed, when there is no memory to grow.
  // Call from: the owner. Never parks.
  [[nodiscard]] bool push(T* element) {
    const Index bottom = bottom_.load(std::memory_order_relaxed);  // relaxed: only we write it.
    if (bottom == limit_) [[unlikely]] {
      return push_slowly(element);
    }
    store(bottom, element);
    return true;
  }

  // Takes the youngest; null when empty. Call from: the owner. Never parks.
  [[nodiscard]] T* pop() {
    const Index bottom = bottom_.load(std::memory_order_relaxed) - 1;  // relaxed: only we write it.
    // relaxed: the top only rises, so one that is stale can hide emptiness but not invent it.
    if (before(bottom, top_.load(std::memory_order_relaxed))) return nullptr;
    // [take] 1 announce, 2 look. seq_cst RMW: a store could sit in its buffer while we look.
    if constexpr (planted(1)) {
      bottom_.store(bottom, std::memory_order_release);
    } else {
      bottom_.exchange(bottom, std::memory_order_seq_cst);
    }
    Index top = top_.load(std::memory_order_seq_cst);  // [take] 2
    if (before(top, bottom)) return slots_.get(bottom);

    // At most this one is left: take it from the top, as a thief would.
    T* element = nullptr;
    if (top == bottom) {
      element = slots_.get(bottom);
      // [take] seq_cst, as every rise of the top. relaxed on failure: a thief has it.
      if (!top_.compare_exchange_strong(top, top + 1, std::memory_order_seq_cst,
                                        std::memory_order_relaxed)) {
        element = nullptr;
      }
    }
    // relaxed: no slot below this bottom is left to be read, so there is nothing to publish.
    bottom_.store(bottom + 1, std::memory_order_relaxed);
    return element;
  }

  // The same for an owner whom nobody robs, ever: no RMW. Call from: the owner. Never parks.
  [[nodiscard]] T* pop_unshared() {
    // relaxed: only we read and write either index.
    const Index bottom = bottom_.load(std::memory_order_relaxed) - 1;
    if (before(bottom, top_.load(std::memory_order_relaxed))) return nullptr;
    bottom_.store(bottom, std::memory_order_relaxed);
    return slots_.get(bottom);
  }

  // Takes the oldest; null when empty. Call from: the owner, now and then, so that none starves.
  [[nodiscard]] T* pop_oldest() {
    const Index bottom = bottom_.load(std::memory_order_relaxed);  // relaxed: only we write it.
    // relaxed: a stale top makes the CAS fail, and slots and elements are our own writes.
    Index top = top_.load(std::memory_order_relaxed);
    while (before(top, bottom)) {
      T* element = slots_.get(top);
      // [take] seq_cst, as every rise of the top. relaxed on failure: as above, once more.
      if (top_.compare_exchange_weak(top, top + 1, std::memory_order_seq_cst,
                                     std::memory_order_relaxed)) {
        return element;
      }
    }
    return nullptr;
  }

  // Takes the oldest: half of what is there, rounded up, at most `max`. Returns how many; 0 also
  // when another thread was faster at the first one.
  // Call from: any thread but the owner. Never parks.
  [[nodiscard]] unsigned steal(T** out, unsigned max) {
    const auto share = static_cast<unsigned>(std::min<std::size_t>((size() + 1) / 2, max));
    unsigned taken = 0;
    while (taken < share) {
      T* element = steal_one();
      if (element == nullptr) break;
      out[taken++] = element;
    }
    return taken;
  }

  // A hint for any thread; exact for the owner while nobody steals.
  [[nodiscard]] std::size_t size() const {
    // relaxed: a hint. The top first, so that a size is rather too large than negative.
    const Index top = top_.load(std::memory_order_relaxed);
    const Index bottom = bottom_.load(std::memory_order_relaxed);
    return before(top, bottom) ? bottom - top : 0;
  }
  [[nodiscard]] bool empty() const { return size() == 0; }

  // [sleep] The waker's half: after it, whoever announces sleep and then calls empty_seq_cst() sees
  // all that was pushed, or else the caller sees the announcement by a seq_cst load. A seq_cst RMW
  // on some other word would not do: it is this one that the sleeper reads.
  // Call from: the owner, between push() and its look at the sleep words.
  void publish_seq_cst() {
    bottom_.exchange(bottom_.load(std::memory_order_relaxed), std::memory_order_seq_cst);
  }

  // [sleep] The sleeper's half.
  // Call from: any thread, after it announced its sleep by a seq_cst RMW.
  [[nodiscard]] bool empty_seq_cst() const {
    const Index top = top_.load(std::memory_order_seq_cst);
    return !before(top, bottom_.load(std::memory_order_seq_cst));
  }

 private:
  // Survives the wrap of the indices: they are never more than a capacity apart.
  static bool before(Index a, Index b) { return static_cast<std::int64_t>(a - b) < 0; }

  void store(Index bottom, T* element) {
    slots_.set(bottom, element);
    // [slot] publishes the slot and what the element points to; pairs with steal_one().
    bottom_.store(bottom + 1, planted(3) ? std::memory_order_relaxed : std::memory_order_release);
  }

  // The deque was full when we last looked at the top.
  [[gnu::noinline]] bool push_slowly(T* element) {
    const Index bottom = bottom_.load(std::memory_order_relaxed);  // relaxed: only we write it.
    // acquire: [reuse] thieves have read the slots below this top before we write them again.
    const Index top = top_.load(std::memory_order_acquire);
    if (bottom - top == slots_.capacity() && !slots_.grow(top, bottom)) return false;
    limit_ = top + slots_.capacity();
    store(bottom, element);
    return true;
  }

  T* steal_one() {
    // [take] 1
    Index top = top_.load(planted(2) ? std::memory_order_acquire : std::memory_order_seq_cst);
    // [take] 2; [slot] an acquire of what push() published.
    const Index bottom =
        bottom_.load(planted(2) ? std::memory_order_acquire : std::memory_order_seq_cst);
    if (!before(top, bottom)) return nullptr;
    T* element = slots_.current().get(top);
    // [take] 3 claims. seq_cst contains the release of [reuse]: our read of the slot comes before
    // its reuse by push(). relaxed on failure: what we read is dropped.
    return top_.compare_exchange_strong(top, top + 1, std::memory_order_seq_cst,
                                        std::memory_order_relaxed)
               ? element
               : nullptr;
  }

  // [slot] push() fills a slot and stores bottom_ with release; steal_one() loads it with acquire.
  // [reuse] A thief reads its slot, raises top_ with release; push_slowly() loads it with acquire.
  // [take] pop() lowers bottom_ to b, then reads top_, and takes slot b without a CAS if top_ < b.
  // Could a thief take b too? It would have read top_ = b from a rise R, and then a bottom_ > b
  // from before the owner's announcement A. All of these are seq_cst, so in their single order A
  // comes before the owner's look, that before R (which it missed), R before the thief's first look
  // (which saw it), that before the thief's second, and that before A (which it missed): a circle.
  // With acquire loads in the thief, or a plain store in the owner, the circle opens: both take b.
  alignas(arch::kCacheLine) Atomic<Index> top_;     // Any thread, CAS only; it never falls.
  alignas(arch::kCacheLine) Atomic<Index> bottom_;  // Written by the owner only.
  SlotArray<T> slots_;
  Index limit_;  // The owner's: it must look at the top again before it fills this slot.
};

}  // namespace weft::base
