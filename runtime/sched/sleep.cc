#include "runtime/sched/sleep.h"

#include "runtime/sched/level.h"
#include "runtime/sched/status.h"
#include "runtime/sched/timers.h"
#include "runtime/sched/worker.h"

namespace weft::sched {
namespace {

struct Sleep : Timer {
  Sleep(FiberBlock& of, std::int64_t until)
      : Timer(&on_fire), fiber(of), epoch(of.claim.epoch()), deadline(until) {}

  // Claims its own wait and no later one; sets no request: that the time is over is the result.
  static void on_fire(Timer& timer, std::int64_t, WakeBatch& batch) {
    auto& self = static_cast<Sleep&>(timer);
    if (self.fiber.claim.claim(self.epoch)) {
      self.over = true;
      batch.add(self.fiber);
    }
  }

  FiberBlock& fiber;
  const std::uint32_t epoch;
  const std::int64_t deadline;
  bool over = false;
};

void commit_sleep(Worker& worker, FiberBlock& fiber, void* argument) {
  auto& sleep = *static_cast<Sleep*>(argument);
  bool parked = false;
  // The lock is held until the fiber is parked: the timer cannot fire before.
  worker.timers().arm_and(sleep, sleep.deadline, os::now_ns(), [&fiber, &parked] {
    parked = fiber.claim.park(kCancel);
    return parked;
  });
  if (!parked) worker.make_ready(fiber);
}

}  // namespace

absl::Status report_interrupted(FiberBlock& self) {
  Worker::maybe_yield();
  return status_of(report_interruption(self));
}

absl::Status sleep_until(std::int64_t deadline_ns) {
  FiberBlock* self = current_fiber();
  if (self == nullptr) {
    return absl::FailedPreconditionError(
        "sleep: only a fiber can sleep; use nanosleep on a thread");
  }
  if (absl::Status status = interrupted(); !status.ok()) return status;
  if (deadline_ns <= os::now_ns()) {
    Worker::yield();
    return absl::OkStatus();
  }
  Sleep sleep(*self, deadline_ns);
  Worker::leave(&commit_sleep, &sleep);
  if (sleep.over) return absl::OkStatus();
  sleep.disarm();
  return interrupted();
}

}  // namespace weft::sched
