#include "runtime/sched/spawn.h"

#include <new>

#include "runtime/sched/ending.h"

namespace weft::sched {

FiberBlock* new_block(const weft::internal::FiberCode& code, const SpawnOptions& options,
                      FiberTraits& traits) {
  const bool extras = !options.name.empty() || options.stack_size != 0;
  const std::size_t extras_bytes = extras ? sizeof(FiberExtras) : 0;
  const bool on_heap =
      code.bytes > BlockCache::kStorageMax - extras_bytes || code.alignment > alignof(void*);
  const std::size_t storage_bytes = on_heap ? sizeof(void*) : code.bytes;
  traits.bits |= (extras ? FiberTraits::kHasExtras : 0) | (on_heap ? FiberTraits::kHeapStorage : 0);

  BlockCache* blocks = current_blocks();
  FiberBlock* fiber;
  {
    WorkerSection section;
    fiber = blocks != nullptr ? blocks->allocate(storage_bytes, extras_bytes)
                              : BlockCache::allocate_shared(storage_bytes, extras_bytes);
  }
  if (fiber == nullptr) return nullptr;
  if (on_heap) {
    void* memory = ::operator new(code.bytes, std::align_val_t(code.alignment), std::nothrow);
    if (memory == nullptr) {
      BlockCache::release(fiber, blocks);
      return nullptr;
    }
    ::new (fiber->storage) void*(memory);
  }
  if (extras) {
    FiberExtras& more = *BlockCache::extras_of(fiber);
    more.stack_bytes = options.stack_size;
    more.name[options.name.copy(more.name, sizeof more.name - 1)] = '\0';
  }
  return fiber;
}

// It has no result, and its claim word stays what it was: free.
void abandon_fiber(FiberBlock& fiber) {
  WorkerSection section;
  free_fiber(fiber, current_blocks());
}

}  // namespace weft::sched
