// What a worker does when chaos strikes (chaos.h); never called in other builds.
#include "runtime/sched/core.h"
#include "runtime/sched/worker.h"

namespace weft::sched {

void Worker::stir_by_chaos() {
  WorkerSection section;
  Worker* worker = current_worker();
  if (worker != nullptr && worker->current_ != nullptr && worker->chaos_.strikes()) yield();
}

bool Worker::scatter(FiberBlock& fiber) {
  if (alone_ || fiber.traits.pinned() || !chaos_.strikes()) return false;
  // Not into the inbox of another worker: that one may be stuck, and nobody else looks there.
  core_.inject(fiber);
  return true;
}

void Worker::disarrange() {
  switch (chaos_.below(6)) {
    case 0:  // the first ready fiber becomes the last
      if (FiberBlock* fiber = ready_.pop()) push_ready(*fiber);
      break;
    case 1:  // the fiber that was just woken loses its place at the front
      if (FiberBlock* fiber = next_slot_.exchange(nullptr, std::memory_order_acq_rel)) {  // [slot]
        push_ready(*fiber);
      }
      break;
    case 2:
      oldest_first_ = true;
      break;
    case 3:
      unstarted_turn_ = !unstarted_turn_;
      break;
    case 4:
      ran_ = kFibersPerTurn;
      break;
    default:
      if (const int victim = chaos_.below(core_.worker_count()); victim != index_) steal(victim);
  }
}

}  // namespace weft::sched
