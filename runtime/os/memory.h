// Address space: regions that stacks are cut from, and the guards inside them.
//
//   os::Region region;
//   if (int error = os::map_region(64 << 20, "weft stacks", region)) return error;   // -ENOMEM, ...
//   if (os::advise_guard(region, region.base, 64 << 10) == -EINVAL)
//     os::protect_guard(region.base, 64 << 10);                                       // one mapping more
//   os::release_pages(stack, bytes);                                    // empty again, guards stay
//   os::unmap_region(region);
//
// Promises: every function returns 0 or a negative errno, and never touches `errno`.
// Call from: any thread. Never parks.
#pragma once

#include <cstddef>

namespace weft::os {

inline constexpr std::size_t kPageBytes = 4096;

struct Region {
  std::byte* base = nullptr;
  std::size_t bytes = 0;
};

// Maps `bytes` of empty memory, readable and writable: no commit charge, no huge pages (one touched
// byte would cost 2 MiB), never locked, shown under `name` in /proc/self/maps where the kernel can.
int map_region(std::size_t bytes, const char* name, Region& region);
int unmap_region(const Region& region);

// Makes [at, at + bytes) of `region` fault on every access without splitting the mapping: such a
// guard costs no entry against vm.max_map_count, and it survives release_pages() and fork.
// -EINVAL: this kernel cannot (before Linux 6.13).
int advise_guard(const Region& region, void* at, std::size_t bytes);

// The guard of older kernels: it splits the mapping and so takes kMapsPerProtectedGuard of the
// vm.max_map_count that a process has. -ENOMEM: they are used up.
inline constexpr std::size_t kMapsPerProtectedGuard = 2;
int protect_guard(void* at, std::size_t bytes);

// Gives the memory of [at, at + bytes) back to the kernel; it reads as zero afterwards.
int release_pages(void* at, std::size_t bytes);

// vm.max_map_count, or the kernel's default where /proc cannot be read.
std::size_t map_count_limit();

}  // namespace weft::os
