// A slab is 256 KiB, aligned to its size, so that a block finds its slab, and with it its class and its
// cache, by masking its own address. Slabs are cut from larger mappings to spare system calls.
#include "runtime/sched/block_pool.h"

#include <mutex>
#include <new>

#include <sys/mman.h>

#include "runtime/base/check.h"
#include "runtime/base/plant.h"
#include "runtime/base/spin_lock.h"
#include "runtime/os/system.h"

namespace weft::sched {
namespace {

constexpr std::size_t kSlabBytes = 256 << 10;
constexpr std::size_t kMappingBytes = 8 << 20;

}  // namespace

struct alignas(64) BlockCache::Slab {
  BlockCache* home;
  int size_class;
  unsigned capacity;
  Slab* next;  // all slabs of the process; set before publication
  // [slab] The owner publishes a block that was never used before by counting it, with its constructor
  // run; a walk looks at counted blocks only.
  base::Atomic<unsigned> used;

  FiberBlock* block(unsigned index) {
    char* first = reinterpret_cast<char*>(this) + sizeof(Slab);
    return reinterpret_cast<FiberBlock*>(first + index * kClassBytes[size_class]);
  }
  static Slab* of(const FiberBlock* block) {
    return reinterpret_cast<Slab*>(reinterpret_cast<std::uintptr_t>(block) & ~(kSlabBytes - 1));
  }
};

namespace {

// What the caches of the whole process share.
struct Registry {
  base::SpinLock lock;
  char* mapping = nullptr;  // the rest of the newest mapping
  char* mapping_end = nullptr;
  BlockCache* idle = nullptr;
  std::uint64_t caches = 0;
  // [slabs] Pushed under the lock, walked without it.
  base::Atomic<BlockCache::Slab*> slabs{nullptr};

  base::SpinLock shared_lock;  // guards the use of `shared`
  BlockCache* shared = nullptr;
};

// Never destroyed: blocks outlive static destruction.
Registry& registry() {
  alignas(Registry) static char memory[sizeof(Registry)];
  static Registry* const instance = new (memory) Registry;
  return *instance;
}

// Call from: under the registry's lock. Null: no memory.
void* cut_slab(Registry& all) {
  if (all.mapping == all.mapping_end) {
    const long r = os::system::mmap(nullptr, kMappingBytes + kSlabBytes, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (r < 0) return nullptr;
    const auto aligned = (static_cast<std::uintptr_t>(r) + kSlabBytes - 1) & ~(kSlabBytes - 1);
    all.mapping = reinterpret_cast<char*>(aligned);
    all.mapping_end = all.mapping + kMappingBytes;
  }
  char* slab = all.mapping;
  all.mapping += kSlabBytes;
  return slab;
}

}  // namespace

BlockCache* BlockCache::lease() {
  Registry& all = registry();
  std::lock_guard hold(all.lock);
  if (BlockCache* cache = all.idle) {
    all.idle = cache->next_idle_;
    return cache;
  }
  return new (std::nothrow) BlockCache(all.caches++);
}

void BlockCache::give_back(BlockCache* cache) {
  Registry& all = registry();
  std::lock_guard hold(all.lock);
  cache->next_idle_ = all.idle;
  all.idle = cache;
}

FiberBlock* BlockCache::refill(int size_class) {
  Class& mine = classes_[size_class];
  // acquire [remote]: pairs with release(); the blocks are ours with all that was written to them.
  if (remote_[size_class].load(std::memory_order_relaxed) != nullptr) {  // relaxed: a hint
    FiberBlock* block = remote_[size_class].exchange(nullptr, std::memory_order_acquire);
    mine.free = block->link;
    return block;
  }
  // relaxed [slab]: only the owner writes it.
  if (mine.slab == nullptr ||
      mine.slab->used.load(std::memory_order_relaxed) == mine.slab->capacity) {
    Registry& all = registry();
    std::lock_guard hold(all.lock);
    void* memory = cut_slab(all);
    if (memory == nullptr) return nullptr;
    const auto capacity =
        static_cast<unsigned>((kSlabBytes - sizeof(Slab)) / kClassBytes[size_class]);
    // relaxed: the lock orders pushes.
    mine.slab = new (memory)
        Slab{this, size_class, capacity, all.slabs.load(std::memory_order_relaxed), {}};
    // release [slabs]: pairs with visit_all()
    all.slabs.store(mine.slab, std::memory_order_release);
  }
  const unsigned index = mine.slab->used.load(std::memory_order_relaxed);  // relaxed: as above
  auto* block = new (mine.slab->block(index)) FiberBlock;
  // release [slab]: the constructed block
  mine.slab->used.store(index + 1, std::memory_order_release);
  return block;
}

FiberBlock* BlockCache::allocate_shared(std::size_t storage_bytes, std::size_t extras_bytes) {
  Registry& all = registry();
  std::lock_guard hold(all.shared_lock);
  if (all.shared == nullptr) all.shared = lease();
  return all.shared == nullptr ? nullptr : all.shared->allocate(storage_bytes, extras_bytes);
}

void BlockCache::release(FiberBlock* block, BlockCache* mine) {
  Slab* slab = Slab::of(block);
  BlockCache* home = slab->home;
  if (home == mine) {
    Class& local = mine->classes_[slab->size_class];
    block->link = local.free;
    happens_before(block);  // whichever fiber of this worker gets it next
    local.free = block;
    return;
  }
  base::Atomic<FiberBlock*>& remote = home->remote_[slab->size_class];
  FiberBlock* seen = remote.load(std::memory_order_relaxed);  // relaxed: the CAS checks it
  do {
    block->link = base::planted(31) ? nullptr : seen;
    happens_before(block);
    // release [remote]: the block as we leave it; pairs with the exchange in refill().
  } while (!remote.compare_exchange_weak(seen, block, std::memory_order_release,
                                         std::memory_order_relaxed));
}

FiberExtras* BlockCache::extras_of(FiberBlock* block) {
  const std::size_t bytes = kClassBytes[Slab::of(block)->size_class];
  return reinterpret_cast<FiberExtras*>(reinterpret_cast<char*>(block) + bytes) - 1;
}

std::size_t BlockCache::storage_bytes_of(const FiberBlock* block) {
  const std::size_t bytes = kClassBytes[Slab::of(block)->size_class];
  return bytes - offsetof(FiberBlock, storage) -
         (block->traits.has_extras() ? sizeof(FiberExtras) : 0);
}

void BlockCache::visit_all(void (*visit)(FiberBlock&, void*), void* argument) {
  // acquire [slabs], [slab]: slabs and blocks are seen constructed.
  for (Slab* slab = registry().slabs.load(std::memory_order_acquire); slab != nullptr;
       slab = slab->next) {
    const unsigned used = slab->used.load(std::memory_order_acquire);
    for (unsigned i = 0; i < used; ++i) visit(*slab->block(i), argument);
  }
}

void BlockCache::prewarm(std::size_t count) {
  FiberBlock* taken = nullptr;
  for (std::size_t i = 0; i < count; ++i) {
    FiberBlock* block = allocate(0, 0);
    if (block == nullptr) break;
    block->link = taken;
    taken = block;
  }
  while (taken != nullptr) {
    FiberBlock* block = taken;
    taken = block->link;
    release(block, this);
  }
}

}  // namespace weft::sched
