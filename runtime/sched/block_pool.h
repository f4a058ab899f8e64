// Control blocks: type-stable memory, from a cache per worker, that goes back to the cache it came from.
//
//   BlockCache* cache = BlockCache::lease();                // a worker, at its start
//   FiberBlock* block = cache->allocate(bytes);             // null: no memory
//   BlockCache::release(block, cache);                      // from any worker or thread
//   BlockCache::give_back(cache);
//
// Slabs belong to the process, not to a runtime: they are never unmapped, because a handle, a late
// waker or a walk over all fibers may look at a block after its fiber, or its runtime, has ended.
//
// Requires: allocate() is called by the worker that leased the cache; the shared cache for other threads
// does its own locking.
// Promises: neither calls malloc; the common case of either is a few loads and stores; a freed block
// keeps its claim word (kFree, and an epoch that only grows).
#pragma once

#include <array>
#include <cstddef>

#include "runtime/base/atomic.h"
#include "runtime/sched/fiber.h"
#include "runtime/sched/switch_hooks.h"

namespace weft::sched {

class alignas(64) BlockCache {
 public:
  // The sizes of a whole block; what does not fit in the largest keeps its closure on the heap.
  static constexpr std::array<std::size_t, 3> kClassBytes{128, 192, 256};
  // The most storage, extras included, that a block has.
  static constexpr std::size_t kStorageMax = kClassBytes.back() - offsetof(FiberBlock, storage);

  // A cache nobody uses, an old one with its blocks if there is one. Null: no memory.
  // Call from: any thread. Never parks.
  static BlockCache* lease();
  static void give_back(BlockCache* cache);

  // A block, with a fresh id, with at least `storage_bytes` of storage, and a FiberExtras behind it if
  // asked for; null when there is no memory.
  // Requires: together at most kStorageMax. Call from: the owner.
  FiberBlock* allocate(std::size_t storage_bytes, std::size_t extras_bytes) {
    const int size_class = class_for(offsetof(FiberBlock, storage) + storage_bytes + extras_bytes);
    Class& mine = classes_[static_cast<unsigned>(size_class)];
    FiberBlock* block = mine.free;
    if (__builtin_expect(block != nullptr, 1)) {
      mine.free = block->link;
    } else {
      block = refill(size_class);
      if (block == nullptr) return nullptr;
    }
    happens_after(block);
    block->id = next_id_++;
    return block;
  }

  // The same for a thread that has no cache. Call from: any thread; takes a lock.
  static FiberBlock* allocate_shared(std::size_t storage_bytes, std::size_t extras_bytes);

  // Gives a block back to the cache it came from. `mine` is the caller's own cache, or null.
  // Call from: any thread. Never parks.
  static void release(FiberBlock* block, BlockCache* mine);

  // Where the extras of a block are, if it has them.
  static FiberExtras* extras_of(FiberBlock* block);
  static std::size_t storage_bytes_of(const FiberBlock* block);

  // Calls visit(block) for every block that was ever handed out, in use or free. Others allocate and
  // free meanwhile: the visitor asks the claim word.
  template <class Visit>
  static void for_each(Visit visit) {
    visit_all([](FiberBlock& block, void* argument) { (*static_cast<Visit*>(argument))(block); },
              &visit);
  }

  // Touches the memory of `count` small blocks, so that the first spawns meet no page fault.
  void prewarm(std::size_t count);

  struct Slab;

 private:
  explicit BlockCache(std::uint64_t number) : next_id_((number << 40) + 1) {}
  static constexpr int class_for(std::size_t total_bytes) {
    return total_bytes <= kClassBytes[0] ? 0 : total_bytes <= kClassBytes[1] ? 1 : 2;
  }
  static void visit_all(void (*visit)(FiberBlock&, void*), void* argument);
  FiberBlock* refill(int size_class);

  struct Class {
    FiberBlock* free = nullptr;  // linked through FiberBlock::link
    Slab* slab = nullptr;        // the one that new blocks are cut from
  };
  std::array<Class, kClassBytes.size()> classes_;
  std::uint64_t next_id_;            // of fibers: each cache draws from a range of its own
  BlockCache* next_idle_ = nullptr;  // under the registry's lock

  // [remote] Others push freed blocks here; the owner takes all of them at once, so no ABA.
  alignas(64) std::array<base::Atomic<FiberBlock*>, kClassBytes.size()> remote_{};
};

}  // namespace weft::sched
