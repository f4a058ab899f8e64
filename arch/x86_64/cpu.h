// What the processor offers beside memory and registers: a pause, a cycle counter, a cache line; and
// whether it is one.
#pragma once

#include <cstddef>
#include <cstdint>

namespace weft::arch {

// Two hot words that different threads write must be at least this far apart.
inline constexpr std::size_t kCacheLine = 64;

// Tells the core that this is a spin loop. Call from: any thread.
inline void pause() { __builtin_ia32_pause(); }

// Cycles of a constant-rate counter; not ordered with other instructions. Call from: any thread.
inline std::uint64_t cycles() { return __builtin_ia32_rdtsc(); }

// Starts to load the cache line of `address`; any address is allowed. Call from: any thread.
inline void prefetch(const void* address) { __builtin_prefetch(address, 1, 3); }

// Whether Valgrind emulates the processor. Five instructions that change nothing on a real one are its
// way of being asked; request 0x1001 is "how deep are we in emulators". Call from: any thread.
inline bool under_valgrind() {
  const std::uint64_t request[6] = {0x1001};
  std::uint64_t depth = 0;
  asm volatile(
      "rolq $3, %%rdi\n\trolq $13, %%rdi\n\trolq $61, %%rdi\n\trolq $51, %%rdi\n\t"
      "xchgq %%rbx, %%rbx"
      : "+d"(depth)
      : "a"(request)
      : "cc", "memory");
  return depth != 0;
}

}  // namespace weft::arch
