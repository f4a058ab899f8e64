// What this process occupies, and whether there is room for more.
//
//   if (!memory_suffices(1'000'000 * kParkedFiberBytes)) return 77;      // it has said why
//   const Footprint before = footprint();
//
// Figures are the kernel's: resident pages and page tables of /proc/self/status, lines of
// /proc/self/maps.
#pragma once

#include <cstddef>
#include <cstdio>
#include <fstream>
#include <string>

#include <sys/resource.h>

namespace weft::bench {

// One page of stack, a control block and the page tables at 256 KiB a stack, rounded up.
inline constexpr std::size_t kParkedFiberBytes = 5'000;

struct Footprint {
  std::size_t resident_bytes = 0;
  std::size_t page_table_bytes = 0;
};

// The value of a line "name:   123 kB" in a file of /proc; 0 when there is none.
inline std::size_t proc_bytes(const char* file, const std::string& name) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    if (line.compare(0, name.size() + 1, name + ":") == 0) {
      return std::stoull(line.substr(name.size() + 1)) << 10;
    }
  }
  return 0;
}

inline Footprint footprint() {
  return {proc_bytes("/proc/self/status", "VmRSS"), proc_bytes("/proc/self/status", "VmPTE")};
}

// What came to something since `before`, by the number of things that are the reason.
inline double growth_each(std::size_t now, std::size_t before, long things) {
  return (static_cast<double>(now) - static_cast<double>(before)) / static_cast<double>(things);
}

inline std::size_t mappings() {
  std::ifstream lines("/proc/self/maps");
  std::size_t count = 0;
  for (std::string line; std::getline(lines, line);) ++count;
  return count;
}

// Whether the machine can give this process so much more memory; if not, a line on stderr says it.
inline bool memory_suffices(std::size_t bytes) {
  const std::size_t available = proc_bytes("/proc/meminfo", "MemAvailable");
  if (available < bytes) {
    std::fprintf(stderr, "skipped: needs %zu MiB of memory, %zu are available\n", bytes >> 20,
                 available >> 20);
    return false;
  }
  return true;
}

}  // namespace weft::bench
