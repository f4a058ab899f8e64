// The two clocks of a measurement: monotonic time, and the CPU time that a process has
// used.
#pragma once

#include <cstdint>
#include <ctime>
#include <optional>

#include <sys/types.h>

namespace weft::bench {

inline std::uint64_t nanoseconds_of(const timespec& t) {
  return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(t.tv_nsec);
}

inline std::uint64_t nanoseconds_of(double seconds) {
  return static_cast<std::uint64_t>(seconds * 1e9);
}

inline std::uint64_t now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return nanoseconds_of(t);
}

// Returns user and system time of all threads of `pid` (0: this process), to the
// nanosecond and not to the 10 ms ticks of /proc; nothing when there is no such process
// any more.
inline std::optional<std::uint64_t> cpu_time_ns(pid_t pid) {
  clockid_t clock;
  timespec t;
  if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &t) != 0) return std::nullopt;
  return nanoseconds_of(t);
}

}  // namespace weft::bench
