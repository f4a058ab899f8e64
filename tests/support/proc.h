// What the whole process uses, as /proc tells: for tests that prove that nothing is left behind.
//
//   const test::ProcessUse before = test::process_use();
//   ...
//   const test::ProcessUse after = test::process_use(before.threads);
#pragma once

#include <filesystem>
#include <fstream>
#include <string>

#include <sched.h>

namespace weft::test {

struct ProcessUse {
  long threads = 0;
  long descriptors = 0;
  long mappings = 0;
  long resident_kib = 0;
};

inline long entries(const char* folder) {
  long count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder)) ++count;
  return count;
}

// A kernel thread is listed for a moment after it was joined. With `threads_expected` this waits, for a
// bounded number of looks, until no more than that many are.
inline ProcessUse process_use(long threads_expected = 0) {
  ProcessUse use;
  int looks = threads_expected == 0 ? 1 : 10'000;
  do {
    use.threads = entries("/proc/self/task");
    if (use.threads <= threads_expected) break;
    sched_yield();
  } while (--looks > 0);
  use.descriptors = entries("/proc/self/fd");
  std::string line;
  for (std::ifstream maps("/proc/self/maps"); std::getline(maps, line);) ++use.mappings;
  for (std::ifstream status("/proc/self/status"); std::getline(status, line);) {
    if (line.rfind("VmRSS:", 0) == 0) use.resident_kib = std::stol(line.substr(6));
  }
  return use;
}

}  // namespace weft::test
