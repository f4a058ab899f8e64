// Deadlines, sleeping, and the time limit of a piece of code.
//
//   weft::Timeout idle(absl::Seconds(30));        // bounds every wait below, until it dies
//   auto n = stream.read(buffer);                 // kDeadlineExceeded after 30 s
//   idle.restart(absl::Seconds(30));
//
// absl::Time is the wall clock; deadlines are on the runtime's clock, which is monotonic.
//
// Requires: a Timeout is made and destroyed on the same fiber, in strict nesting, like any local.
// Promises: nothing ends before its deadline; a timer may be late by min(Options::timer_slack, 1/50 of
// its length). The nearest deadline wins.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>

#include <absl/status/status.h>
#include <absl/time/time.h>

namespace weft {

class Deadline {
 public:
  Deadline() = default;  // infinite

  // From now on; saturates; a negative duration is already past. Call from: any thread. Never parks.
  static Deadline in(absl::Duration duration);
  // A time of the wall clock, converted once, here. Call from: any thread. Never parks.
  static Deadline at(absl::Time wall);

  // Not negative; infinite for an infinite deadline. Call from: any thread. Never parks.
  absl::Duration remaining() const;

  auto operator<=>(const Deadline&) const = default;

  // Nanoseconds of the monotonic clock; INT64_MAX: infinite.
  std::int64_t nanoseconds() const { return ns_; }

 private:
  explicit Deadline(std::int64_t ns) : ns_(ns) {}
  std::int64_t ns_ = INT64_MAX;
};

// Returns OK when the time is over, or what interrupted the sleep.
// Call from: a fiber. Parks.
[[nodiscard]] absl::Status sleep_for(absl::Duration duration);
[[nodiscard]] absl::Status sleep_until(Deadline deadline);

// Bounds the waits of the calling fiber while it lives. Owns no fibers and does not bound those that are
// spawned meanwhile.
class Timeout {
 public:
  // Call from: a fiber; anywhere else it says so and ends the process.
  explicit Timeout(absl::Duration duration);
  explicit Timeout(Deadline deadline);
  ~Timeout();
  Timeout(const Timeout&) = delete;
  Timeout& operator=(const Timeout&) = delete;

  // Starts again. O(1); a later deadline costs one atomic operation. Lifts an expiry that no wait has
  // reported yet; one that was reported stays. Call from: its fiber. Never parks.
  void restart(absl::Duration duration);

  // Whether this one expired, and not one around it. Call from: its fiber. Never parks.
  bool expired() const;

 private:
  alignas(8) std::byte state_[128];
};

}  // namespace weft
