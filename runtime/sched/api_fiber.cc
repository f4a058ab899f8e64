// <weft/fiber.h>, <weft/status.h> and <weft/time.h> over the scheduler.
#include <weft/fiber.h>
#include <weft/status.h>
#include <weft/time.h>

#include <exception>
#include <memory>
#include <new>

#include "runtime/base/check.h"
#include "runtime/sched/core.h"
#include "runtime/sched/fiber_life.h"
#include "runtime/sched/park.h"
#include "runtime/sched/sleep.h"
#include "runtime/sched/status.h"
#include "runtime/sched/timeout.h"
#include "runtime/sched/worker.h"

namespace weft {

// ---- status.h

int error_number(const absl::Status& status) { return sched::errno_of(status); }
bool is_interrupt(const absl::Status& status) { return sched::is_interruption(status); }
bool is_closed(const absl::Status& status) {
  return status.code() == absl::StatusCode::kOutOfRange;
}

// ---- fiber.h

namespace internal {

absl::Status FiberHandle::wait() const {
  if (block == nullptr) {
    switch (missing) {
      case absl::StatusCode::kResourceExhausted:
        return absl::ResourceExhaustedError("spawn: no memory for a control block");
      default:
        return absl::FailedPreconditionError(
            "join: the handle is empty: joined before, or spawned without a runtime");
    }
  }
  while (true) {
    if ((block->join.load() & sched::FiberBlock::kDone) != 0) return absl::OkStatus();
    if (absl::Status status = sched::interrupted(); !status.ok()) return status;
    const std::uint64_t state = block->join.lock();
    if ((state & sched::FiberBlock::kDone) != 0) {
      block->join.unlock(state);
      return absl::OkStatus();
    }
    sched::WaitNode node;
    if (sched::wait(block->join, state, node, sched::kCancel)) return absl::OkStatus();
  }
}

void* FiberHandle::result() const {
  void* storage = sched::fiber_storage(*block);
  if (block->traits.ending() != sched::Ending::kThrew) return storage;
  const auto exception = *static_cast<std::shared_ptr<sched::ChildException>*>(storage);
  exception->taken.store(true, std::memory_order_release);  // release: pairs with Group::report()
  std::rethrow_exception(exception->pointer);
}

void FiberHandle::drop() {
  if (block == nullptr) return;
  sched::drop_handle(*std::exchange(block, nullptr));
  missing = absl::StatusCode::kFailedPrecondition;
}

void FiberHandle::cancel() const {
  if (block == nullptr) return;
  // While we hold the join word the fiber cannot end, and its runtime lives.
  const std::uint64_t state = block->join.lock();
  if ((state & sched::FiberBlock::kDone) != 0) return block->join.unlock(state);
  const sched::Core::Visit visit(sched::Core::of(*block));
  sched::WakeBatch batch;
  batch.request_end(*block);
  block->join.unlock(state);
  batch.deliver();
}

bool FiberHandle::done() const {
  if (block == nullptr) return true;
  std::uint64_t state = block->join.load();
  // The end of a fiber holds the lock until the group has counted it: who has joined the group waits here.
  while ((state & sched::ObjectWord::kLocked) != 0) {
    base::spin_hint();
    state = block->join.load();
  }
  return (state & sched::FiberBlock::kDone) != 0;
}

unsigned long long FiberHandle::id() const { return block == nullptr ? 0 : block->id; }

}  // namespace internal

namespace this_fiber {

void yield() {
  if (sched::current_fiber() != nullptr) sched::Worker::yield();
}

void maybe_yield() {
  if (sched::current_fiber() != nullptr) sched::Worker::maybe_yield();
}

absl::Status checkpoint() {
  maybe_yield();
  return sched::interrupted();
}

bool cancelled() {
  const sched::FiberBlock* self = sched::current_fiber();
  return self != nullptr && self->claim.asked(sched::kCancel);
}

FiberId id() {
  const sched::FiberBlock* self = sched::current_fiber();
  return self == nullptr ? 0 : self->id;
}

std::size_t stack_remaining() {
  const sched::FiberBlock* self = sched::current_fiber();
  if (self == nullptr) return 0;
  const auto* here = static_cast<const std::byte*>(__builtin_frame_address(0));
  return static_cast<std::size_t>(here - self->frame->stack->low);
}

}  // namespace this_fiber

// ---- time.h

namespace {

std::int64_t after(absl::Duration duration) {
  if (duration == absl::InfiniteDuration()) return os::kNever;
  const std::int64_t now = os::now_ns();
  const std::int64_t length = absl::ToInt64Nanoseconds(duration);  // saturates
  return length > os::kNever - now ? os::kNever : now + length;
}

sched::FiberBlock& fiber_that_makes(const char* message) {
  sched::FiberBlock* self = sched::current_fiber();
  WEFT_CHECK(self != nullptr, message);
  return *self;
}

sched::TimeoutLevel& level_in(std::byte* state) {
  return *std::launder(reinterpret_cast<sched::TimeoutLevel*>(state));
}

}  // namespace

Deadline Deadline::in(absl::Duration duration) { return Deadline(after(duration)); }
Deadline Deadline::at(absl::Time wall) { return in(wall - absl::Now()); }

absl::Duration Deadline::remaining() const {
  if (ns_ == os::kNever) return absl::InfiniteDuration();
  const std::int64_t now = os::now_ns();
  return absl::Nanoseconds(ns_ > now ? ns_ - now : 0);
}

absl::Status sleep_for(absl::Duration duration) { return sched::sleep_until(after(duration)); }
absl::Status sleep_until(Deadline deadline) { return sched::sleep_until(deadline.nanoseconds()); }

Timeout::Timeout(Deadline deadline) {
  static_assert(sizeof(state_) >= sizeof(sched::TimeoutLevel));
  ::new (state_)
      sched::TimeoutLevel(fiber_that_makes("a Timeout bounds the waits of a fiber: there "
                                           "is none on this thread"),
                          deadline.nanoseconds());
}
Timeout::Timeout(absl::Duration duration) : Timeout(Deadline::in(duration)) {}
Timeout::~Timeout() { level_in(state_).~TimeoutLevel(); }
void Timeout::restart(absl::Duration duration) { level_in(state_).restart(after(duration)); }
bool Timeout::expired() const { return level_in(const_cast<std::byte*>(state_)).expired(); }

}  // namespace weft
