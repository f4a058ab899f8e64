#include "runtime/os/cpus.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <string>

#include <sched.h>

namespace weft::os {
namespace {

// The path of our group in the unified hierarchy: the line "0::/path".
std::string own_group() {
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    if (line.rfind("0::", 0) == 0) return line.substr(3);
  }
  return {};
}

// "max 100000" or "150000 100000": microseconds per period.
int quota_of(const std::string& group) {
  std::ifstream file("/sys/fs/cgroup" + group + "/cpu.max");
  double quota = 0;
  double period = 0;
  if (!(file >> quota >> period) || quota <= 0 || period <= 0) return 0;
  return static_cast<int>((quota + period - 1) / period);
}

}  // namespace

int affinity_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

int usable_cpus() {
  int cpus = affinity_cpus();
  // A quota of any group above ours binds us as well.
  for (std::string group = own_group(); !group.empty();) {
    if (const int quota = quota_of(group == "/" ? "" : group); quota > 0)
      cpus = std::min(cpus, quota);
    if (group == "/") break;
    const std::size_t slash = group.rfind('/');
    group = slash == 0 || slash == std::string::npos ? "/" : group.substr(0, slash);
  }
  return std::max(1, cpus);
}

}  // namespace weft::os
