#include "runtime/sched/wake_batch.h"

#include "runtime/base/plant.h"
#include "runtime/sched/core.h"
#include "runtime/sched/foreign_waiter.h"
#include "runtime/sched/worker.h"

namespace weft::sched {

void WakeBatch::add(WaitNode& node) {
  if (node.fiber != nullptr) {
    add(*node.fiber);
  } else {
    // The record and not the node: the node is on a stack that may be gone before deliver().
    node.foreign->next = foreign_;
    foreign_ = node.foreign;
  }
}

void WakeBatch::request(FiberBlock& fiber, Request what) { keep(fiber, fiber.claim.request(what)); }

void WakeBatch::request_end(FiberBlock& fiber) { keep(fiber, fiber.claim.request_end()); }

void WakeBatch::request_of(FiberBlock& fiber, Request what, unsigned runtime) {
  keep(fiber, fiber.claim.request_of(what, runtime));
}

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
    Core& core = Core::of(*fiber);
    if (worker != nullptr && &worker->core() == &core) {
      worker->make_ready(*fiber);
    } else if (fiber->pinned && fiber->frame != nullptr) {
      core.send_ready(*fiber, fiber->frame->pinned_to->index());
    } else {
      core.inject(*fiber);
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
