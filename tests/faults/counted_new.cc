#include "tests/faults/counted_new.h"

#include <atomic>
#include <cstdlib>
#include <new>

namespace {

// All relaxed: counters that order nothing; a test reads them when its other threads have ended.
std::atomic<bool> armed{false};
std::atomic<unsigned> made{0};
std::atomic<unsigned> first{0};
std::atomic<unsigned> end{0};
std::atomic<bool> failed{false};
std::atomic<long> alive{0};

bool fails() {
  if (!armed.load(std::memory_order_relaxed)) return false;
  const unsigned index = made.fetch_add(1, std::memory_order_relaxed);
  if (index < first.load(std::memory_order_relaxed) ||
      index >= end.load(std::memory_order_relaxed)) {
    return false;
  }
  failed.store(true, std::memory_order_relaxed);
  return true;
}

void* allocate(std::size_t bytes, std::size_t alignment) noexcept {
  if (fails()) return nullptr;
  const std::size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void* memory = std::aligned_alloc(alignment, rounded);
  if (memory != nullptr) alive.fetch_add(1, std::memory_order_relaxed);
  return memory;
}

void* allocate_or_throw(std::size_t bytes, std::size_t alignment) {
  void* memory = allocate(bytes, alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

void release(void* memory) noexcept {
  if (memory == nullptr) return;
  alive.fetch_sub(1, std::memory_order_relaxed);
  std::free(memory);
}

constexpr std::size_t kUsual = __STDCPP_DEFAULT_NEW_ALIGNMENT__;
std::size_t of(std::align_val_t alignment) { return static_cast<std::size_t>(alignment); }

}  // namespace

namespace weft::test {

void fail_allocation(unsigned nth, unsigned repeat) {
  made.store(0, std::memory_order_relaxed);
  failed.store(false, std::memory_order_relaxed);
  first.store(nth, std::memory_order_relaxed);
  end.store(nth + repeat, std::memory_order_relaxed);
  armed.store(true, std::memory_order_relaxed);
}

bool allocation_failed() {
  armed.store(false, std::memory_order_relaxed);
  return failed.load(std::memory_order_relaxed);
}

long allocations_alive() { return alive.load(std::memory_order_relaxed); }

}  // namespace weft::test

using std::align_val_t;
using std::nothrow_t;
using std::size_t;

// The forms that are left out call one of these.
void* operator new(size_t n) { return allocate_or_throw(n, kUsual); }
void* operator new(size_t n, align_val_t a) { return allocate_or_throw(n, of(a)); }
void* operator new(size_t n, const nothrow_t&) noexcept { return allocate(n, kUsual); }
void* operator new(size_t n, align_val_t a, const nothrow_t&) noexcept {
  return allocate(n, of(a));
}
void* operator new[](size_t n) { return allocate_or_throw(n, kUsual); }
void* operator new[](size_t n, align_val_t a) { return allocate_or_throw(n, of(a)); }
void* operator new[](size_t n, const nothrow_t&) noexcept { return allocate(n, kUsual); }
void* operator new[](size_t n, align_val_t a, const nothrow_t&) noexcept {
  return allocate(n, of(a));
}
void operator delete(void* p) noexcept { release(p); }
void operator delete(void* p, size_t) noexcept { release(p); }
void operator delete(void* p, align_val_t) noexcept { release(p); }
void operator delete(void* p, size_t, align_val_t) noexcept { release(p); }
void operator delete[](void* p) noexcept { release(p); }
void operator delete[](void* p, size_t) noexcept { release(p); }
void operator delete[](void* p, align_val_t) noexcept { release(p); }
void operator delete[](void* p, size_t, align_val_t) noexcept { release(p); }
