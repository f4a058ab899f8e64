// Sleeping: the wait that is a timer.
#pragma once

#include <cstdint>

#include <absl/status/status.h>

namespace weft::sched {

// Returns OK when `deadline_ns` is over, or the interruption. Call from: a fiber. Parks.
absl::Status sleep_until(std::int64_t deadline_ns);

// What every cancellation point does when it finds itself interrupted: says why, and counts it as work,
// so that a loop over it does not keep the worker for ever. OK when nothing is asked.
absl::Status interrupted();

}  // namespace weft::sched
