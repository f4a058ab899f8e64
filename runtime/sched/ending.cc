#include "runtime/sched/ending.h"

#include <weft/internal/fiber_code.h>

#include <memory>
#include <new>

#include "runtime/base/plant.h"
#include "runtime/sched/block_pool.h"
#include "runtime/sched/park.h"
#include "runtime/sched/worker.h"

namespace weft::sched {
namespace {

// The bits beside it are read by the worker whenever it puts the fiber into a queue.
void set_ending(FiberBlock& fiber, Ending ending) {
  WorkerSection section;
  fiber.traits.set_ending(ending);
}

}  // namespace

void seal(FiberBlock& fiber, Ending ending) {
  if (fiber.code->destroy_result == nullptr) return set_ending(fiber, ending);
  // [life] Under the lock also when there is no result: who drops the handle looks at the ending meanwhile.
  const std::uint64_t state = fiber.join.lock();
  const bool is_ours = ending == Ending::kReturned && (state & FiberBlock::kDetached) != 0;
  if (!is_ours) set_ending(fiber, ending);
  fiber.join.unlock(state);
  if (is_ours) fiber.code->destroy_result(fiber_storage(fiber));
}

void free_fiber(FiberBlock& fiber, BlockCache* cache) {
  const auto ending = fiber.traits.ending();
  if (ending == Ending::kThrew) {
    std::destroy_at(static_cast<std::shared_ptr<ChildException>*>(fiber_storage(fiber)));
  } else if (ending == Ending::kReturned && fiber.code->destroy_result == nullptr) {
    fiber.code->destroy_plain_result(fiber_storage(fiber));
  }
  if (fiber.traits.heap_storage()) {
    ::operator delete(fiber_storage(fiber), std::align_val_t(fiber.code->alignment));
  }
  if (fiber.claim.free()) BlockCache::release(&fiber, cache);
}

bool is_done(const FiberBlock& fiber) {
  std::uint64_t state = fiber.join.load();
  // The end of a fiber holds the lock until the group has counted it: who has joined the group waits here.
  while ((state & ObjectWord::kLocked) != 0) {
    base::spin_hint();
    state = fiber.join.load();
  }
  return (state & FiberBlock::kDone) != 0;
}

bool wait_until_done(FiberBlock& fiber, unsigned accepts) {
  const std::uint64_t state = fiber.join.lock();
  if ((state & FiberBlock::kDone) != 0) {
    fiber.join.unlock(state);
    return true;
  }
  WaitNode node;
  return wait(fiber.join, state, node, accepts);
}

void drop_handle(FiberBlock& fiber) {
  // A result whose destructor may do anything is destroyed first, at leisure: so long the block is ours, too.
  bool result_is_ours = fiber.code->destroy_result != nullptr;
  while (true) {
    // [life] The look (acquire) spares the lock when the fiber is done: it has let go of the block.
    std::uint64_t state = fiber.join.load();
    const bool was_done = (state & FiberBlock::kDone) != 0;
    if (!was_done) state = fiber.join.lock();
    if (result_is_ours && fiber.traits.ending() == Ending::kReturned) {
      if (!was_done) fiber.join.unlock(state);
      fiber.code->destroy_result(fiber_storage(fiber));
      result_is_ours = false;
      continue;
    }
    if ((state & FiberBlock::kDone) != 0 && !base::planted(28)) break;
    return fiber.join.unlock(state | FiberBlock::kDetached);  // [life] the last touch
  }
  WorkerSection section;
  free_fiber(fiber, current_blocks());
}

}  // namespace weft::sched
