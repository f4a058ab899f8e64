// Monotonic time in nanoseconds, and the deadline that never comes.
//
//   const std::int64_t deadline_ns = os::now_ns() + 10'000'000;
//
// Promises: two readings never go backwards, on any two threads that are ordered. The clock does
// not count while the machine sleeps, and agrees with the deadlines of futexes, epoll and io_uring.
#pragma once

#include <cstdint>
#include <limits>

#include <time.h>

namespace weft::os {

inline constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();

inline constexpr std::int64_t kNanosPerSecond = 1'000'000'000;

// CLOCK_MONOTONIC. About 20 ns, by the vDSO; errno stays untouched.
// Call from: any thread. Never blocks.
inline std::int64_t now_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);  // cannot fail for this clock
  return now.tv_sec * kNanosPerSecond + now.tv_nsec;
}

}  // namespace weft::os
