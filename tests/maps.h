// The mappings of this process, as the kernel lists them in /proc/self/maps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>

#include "runtime/base/sanitizer.h"

namespace weft::test {

// Calls visit(low, end, line) for each mapping.
template <class Visit>
void for_each_mapping(Visit visit) {
  std::FILE* file = std::fopen("/proc/self/maps", "re");
  if (file == nullptr) return;
  char line[512];
  while (std::fgets(line, sizeof line, file) != nullptr) {
    unsigned long low = 0;
    unsigned long end = 0;
    if (std::sscanf(line, "%lx-%lx", &low, &end) == 2) visit(low, end, std::string(line));
  }
  std::fclose(file);
}

// Always 0 under a sanitizer, which maps shadow memory of its own whenever it likes.
inline std::size_t mapping_count() {
  std::size_t count = 0;
  if (base::kAsan || base::kTsan) return count;
  for_each_mapping([&](auto, auto, const auto&) { ++count; });
  return count;
}

// How many mappings [base, base + bytes) overlaps.
inline std::size_t mappings_in(const void* base, std::size_t bytes) {
  const auto wanted = reinterpret_cast<std::uintptr_t>(base);
  std::size_t count = 0;
  for_each_mapping([&](std::uintptr_t low, std::uintptr_t end, const auto&) {
    count += low < wanted + bytes && wanted < end ? 1 : 0;
  });
  return count;
}

// The lines of /proc/self/smaps about the mapping that holds `address`; empty when there is none.
inline std::string mapping_details(const void* address) {
  std::FILE* file = std::fopen("/proc/self/smaps", "re");
  if (file == nullptr) return {};
  const auto wanted = reinterpret_cast<unsigned long>(address);
  std::string details;
  char line[512];
  bool inside = false;
  while (std::fgets(line, sizeof line, file) != nullptr) {
    unsigned long low = 0;
    unsigned long end = 0;
    if (std::sscanf(line, "%lx-%lx ", &low, &end) == 2) inside = low <= wanted && wanted < end;
    if (inside) details += line;
  }
  std::fclose(file);
  return details;
}

// A field of /proc/self/status in KiB: "VmPTE:", "VmRSS:".
inline std::size_t status_kib(const char* field) {
  std::FILE* file = std::fopen("/proc/self/status", "re");
  if (file == nullptr) return 0;
  const std::string format = std::string(field) + " %zu";
  char line[256];
  std::size_t kib = 0;
  while (std::fgets(line, sizeof line, file) != nullptr) {
    if (std::sscanf(line, format.c_str(), &kib) == 1) break;
  }
  std::fclose(file);
  return kib;
}

}  // namespace weft::test
