// Sleeping: the wait that is a timer.
#pragma once

#include <cstdint>

#include <absl/status/status.h>

#include "runtime/sched/worker.h"

namespace weft::sched {

// Returns OK when `deadline_ns` is over, or the interruption. Call from: a fiber. Parks.
absl::Status sleep_until(std::int64_t deadline_ns);

// Says why the calling fiber is interrupted, and counts it as work, so that a loop over a cancellation
// point does not keep the worker for ever. OK when nothing is asked. Call from: a fiber.
absl::Status report_interrupted(FiberBlock& self);

// What every cancellation point begins with: OK, unless the calling fiber was asked to end.
// Call from: any thread; OK on one that is no fiber.
inline absl::Status interrupted() {
  Worker::stir();
  FiberBlock* self = current_fiber();
  if (__builtin_expect(self == nullptr || !self->claim.asked(kCancel), 1)) return absl::OkStatus();
  return report_interrupted(*self);
}

}  // namespace weft::sched
