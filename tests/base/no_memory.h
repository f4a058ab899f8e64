// Makes the allocations that may fail (new (std::nothrow)) fail while one of these lives. Include it in
// one file of a test program: it replaces the global operators.
#pragma once

#include <cstddef>
#include <new>

namespace weft::test {

inline thread_local bool out_of_memory = false;

struct NoMemory {
  NoMemory() { out_of_memory = true; }
  ~NoMemory() { out_of_memory = false; }
  NoMemory(const NoMemory&) = delete;
  NoMemory& operator=(const NoMemory&) = delete;
};

inline void* allocate_or_null(std::size_t bytes) noexcept {
  if (out_of_memory) return nullptr;
  try {
    return ::operator new(bytes);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

}  // namespace weft::test

void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return weft::test::allocate_or_null(bytes);
}
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept {
  return weft::test::allocate_or_null(bytes);
}
