// A region starts inaccessible and becomes writable last. In a process that locks its future memory
// (mlockall) a writable mapping would be filled with pages at once, all of its gigabytes; an
// inaccessible one is not, and is unlocked before it matters. A locked region could not have
// guards by advice either.
#include "runtime/os/memory.h"

#include <cerrno>
#include <cstdint>
#include <cstdio>

#include <sys/mman.h>
#include <sys/prctl.h>

#include "runtime/os/system.h"

namespace weft::os {
namespace {

constexpr int kMadvGuardInstall = 102;  // newer than the headers of the distributions we build on
constexpr int kPrSetVma = 0x53564d41;
constexpr int kPrSetVmaAnonName = 0;
constexpr std::size_t kDefaultMapCount = 65530;

}  // namespace

int map_region(std::size_t bytes, const char* name, Region& region) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK;
  const long address = system::mmap(nullptr, bytes, PROT_NONE, flags, -1, 0);
  if (address < 0 && address > -4096) return static_cast<int>(address);
  const Region mapped{reinterpret_cast<std::byte*>(address), bytes};
  system::munlock(mapped.base, bytes);  // can only fail for memory that is not mapped
  if (int error = system::mprotect(mapped.base, bytes, PROT_READ | PROT_WRITE)) {
    unmap_region(mapped);
    return error;
  }
  // Both are refused by kernels that lack the feature, and then nothing is lost.
  system::madvise(mapped.base, bytes, MADV_NOHUGEPAGE);
  system::prctl(kPrSetVma, kPrSetVmaAnonName, address, static_cast<long>(bytes),
                reinterpret_cast<long>(name));
  region = mapped;
  return 0;
}

int unmap_region(const Region& region) { return system::munmap(region.base, region.bytes); }

int advise_guard(const Region& region, void* at, std::size_t bytes) {
  const int error = system::madvise(at, bytes, kMadvGuardInstall);
  if (error != -EINVAL) return error;
  // Somebody may have locked all memory of the process since the region was mapped. The whole
  // region is unlocked, because unlocking the guard alone would split the mapping.
  system::munlock(region.base, region.bytes);
  return system::madvise(at, bytes, kMadvGuardInstall);
}

int protect_guard(void* at, std::size_t bytes) { return system::mprotect(at, bytes, PROT_NONE); }

int release_pages(void* at, std::size_t bytes) { return system::madvise(at, bytes, MADV_DONTNEED); }

std::size_t map_count_limit() {
  std::size_t limit = kDefaultMapCount;
  if (std::FILE* file = std::fopen("/proc/sys/vm/max_map_count", "re")) {
    unsigned long value = 0;
    if (std::fscanf(file, "%lu", &value) == 1) limit = value;
    std::fclose(file);
  }
  return limit;
}

}  // namespace weft::os
