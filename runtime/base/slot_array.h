// SlotArray: the growable ring of pointers under both run queues.
//
//   base::SlotArray<Fiber> slots(256);
//   slots.set(tail, fiber);                            // the owner
//   Fiber* f = slots.current().get(head);              // a thief
//
// An index counts up for ever, 64 bits wide; the array is as many of the last indices as it has
// slots. Growing makes a second array of twice the size and copies; the first one stays until the
// end, for a thief may still read there. All old arrays together are smaller than the current one.
//
// Requires: one owner; nobody else calls what is marked so. Which indices hold elements is for the
//           owner's queue to say. A thief may read a slot that is being reused: it must find that
//           out by a CAS on the queue's own index before it trusts what it read.
// Promises: no slot of an old array changes after growth; only the destructor releases memory.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "runtime/base/atomic.h"
#include "runtime/base/plant.h"

namespace weft::base {

template <class T>
class SlotArray {
 public:
  // Wide enough that an index never comes back: a thief that stalls between its look and its CAS
  // cannot be deceived by a head that went round once (at 1 ns an element 2^32 takes four seconds).
  using Index = std::uint64_t;

 private:
  struct Block;

 public:
  // One array as a thief sees it.
  class View {
   public:
    // relaxed: the caller has acquired the index that published this slot.
    T* get(Index i) const {
      return block_->slots[i & block_->mask].load(std::memory_order_relaxed);
    }

   private:
    friend class SlotArray;
    explicit View(const Block* block) : block_(block) {}
    const Block* block_;
  };

  // The capacity is rounded up to a power of two. Throws std::bad_alloc.
  explicit SlotArray(std::size_t capacity) {
    auto block = std::make_unique<Block>();
    block->mask = std::bit_ceil(capacity) - 1;
    block->slots = std::make_unique<Atomic<T*>[]>(block->mask + 1);
    use(block.release());
  }

  ~SlotArray() {
    // relaxed: nobody else is left.
    Block* block = current_.load(std::memory_order_relaxed);
    while (block != nullptr) {
      std::unique_ptr<Block> dead(block);
      block = dead->older;
    }
  }

  SlotArray(const SlotArray&) = delete;
  SlotArray& operator=(const SlotArray&) = delete;

  // Call from: the owner.
  [[nodiscard]] Index capacity() const { return mask_ + 1; }

  // Call from: the owner. relaxed: only the owner writes slots.
  [[nodiscard]] T* get(Index i) const { return slots_[i & mask_].load(std::memory_order_relaxed); }

  // Call from: the owner. relaxed: the queue's index publishes the slot.
  void set(Index i, T* element) { slots_[i & mask_].store(element, std::memory_order_relaxed); }

  // Doubles the capacity and keeps the elements [first, last). Returns false, with nothing changed,
  // when there is no memory. Call from: the owner.
  [[nodiscard]] bool grow(Index first, Index last) {
    std::unique_ptr<Block> block(new (std::nothrow) Block);
    if (block == nullptr) return false;
    block->mask = 2 * mask_ + 1;
    block->slots.reset(new (std::nothrow) Atomic<T*>[block->mask + 1]());
    if (block->slots == nullptr) return false;
    for (Index i = first; i != last; ++i) {
      // relaxed: nobody sees this block before use() publishes it.
      block->slots[i & (planted(6) ? mask_ : block->mask)].store(get(i), std::memory_order_relaxed);
    }
    // relaxed: only the owner writes it.
    block->older = current_.load(std::memory_order_relaxed);
    use(block.release());
    return true;
  }

  // Call from: any thread.
  [[nodiscard]] View current() const {
    // acquire: [grow] the block and the elements copied into it are visible. It may be newer than
    // the index that the thief has read, so that index does not cover it.
    return View(current_.load(std::memory_order_acquire));
  }

 private:
  struct Block {
    Index mask = 0;
    Block* older = nullptr;
    std::unique_ptr<Atomic<T*>[]> slots;
  };

  void use(Block* block) {
    slots_ = block->slots.get();
    mask_ = block->mask;
    // [grow] publishes the filled block; pairs with current().
    current_.store(block, planted(8) ? std::memory_order_relaxed : std::memory_order_release);
  }

  // The owner's own copy of what current_ leads to: two loads less on its every push and pop.
  Atomic<T*>* slots_ = nullptr;
  Index mask_ = 0;
  // [grow] The owner stores a filled block with release; a thief loads it with acquire.
  Atomic<Block*> current_{nullptr};
};

}  // namespace weft::base
