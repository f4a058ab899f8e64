#include "runtime/sched/wake_batch.h"

#include "runtime/base/plant.h"
#include "runtime/sched/core.h"
#include "runtime/sched/foreign_waiter.h"
#include "runtime/sched/worker.h"

namespace weft::sched {

void WakeBatch::request(FiberBlock& fiber, Request what) { keep(fiber, fiber.claim.request(what)); }

void WakeBatch::request_end(FiberBlock& fiber) { keep(fiber, fiber.claim.request_end()); }

void WakeBatch::keep(FiberBlock& fiber, ClaimWord::Requested requested) {
  switch (requested.outcome) {
    case ClaimWord::Outcome::kNoted:
      break;
    case ClaimWord::Outcome::kWoken:
      add(fiber);
      break;
    case ClaimWord::Outcome::kMessage:
      messages_.push(&fiber);  // the queued bit keeps the block until the message has arrived
      break;
  }
}

void WakeBatch::deliver() {
  Worker* worker = current_worker();
  while (FiberBlock* fiber = take_ready()) {
    if (worker != nullptr && fiber->claim.load().runtime() == worker->core().number()) {
      worker->make_ready(*fiber);
    } else if (fiber->traits.pinned() && fiber->frame != nullptr) {
      Core::of(*fiber).send_ready(*fiber, fiber->frame->pinned_to->index());
    } else {
      Core::of(*fiber).inject(*fiber);
    }
  }
  while (FiberBlock* fiber = messages_.pop()) {
    // Where it waits now; if that changes before the message arrives, the receiver sends it on.
    Core::of(*fiber).send_message(*fiber, static_cast<int>(fiber->claim.load().ring()));
  }
  while (foreign_ != nullptr) {
    ForeignWaiter* record = foreign_;
    foreign_ = record->next;
    record->notify();
  }
}

}  // namespace weft::sched
