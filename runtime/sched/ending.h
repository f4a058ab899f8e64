// The end of a fiber: who hears of it, and to whom its result and its block belong then.
//
//   seal(fiber, Ending::kReturned);        // the fiber, on its own stack: the result stands
//   finish_fiber(fiber, cache, batch);     // the commit step of its exit
//   wait_until_done(fiber, kCancel);       // a joiner
//   drop_handle(fiber);                    // who has the handle, once
//
// The order at the end: result, group, join word. The join word is locked meanwhile, so that nobody who has
// seen the group empty finds the fiber not done. Fiber and handle both keep the block; who comes last frees
// it. Where it can be seen that the other has gone already, no lock is needed. [life]
//
// Protocol: checked in tests/model over these very functions.
#pragma once

#include <cstdint>

#include "runtime/base/plant.h"
#include "runtime/sched/fiber.h"
#include "runtime/sched/group.h"
#include "runtime/sched/wake_batch.h"

namespace weft::sched {

class BlockCache;

// From here on the result belongs to the handle. If that is gone already the fiber destroys the result itself,
// here, where a destructor may park. Call from: the fiber, once.
void seal(FiberBlock& fiber, Ending ending);

// Destroys what is left of the result and gives the block back. Call from: the last of fiber and handle.
void free_fiber(FiberBlock& fiber, BlockCache* cache);

// Tells everybody that the fiber has ended. Call from: the worker, after the fiber left its stack.
inline void finish_fiber(FiberBlock& fiber, BlockCache* cache, WakeBatch& batch) {
  // [life] Without a handle nobody else knows the join word. acquire: what the handle did to the result.
  std::uint64_t state = fiber.join.load();
  if (state != FiberBlock::kDetached) {
    state = fiber.join.lock();
    batch.add_all(WaitList(ObjectWord::waiters(state)));
  }
  if constexpr (base::planted(27))
    fiber.join.unlock((state & FiberBlock::kDetached) | FiberBlock::kDone);
  fiber.group->ended(fiber, batch);
  if ((state & FiberBlock::kDetached) != 0) return free_fiber(fiber, cache);
  if constexpr (base::planted(27)) return;
  fiber.join.unlock(FiberBlock::kDone);  // [life] the last touch: the block is the handle's now
}

// Whether the fiber has ended, and its group knows. Call from: who has the handle.
bool is_done(const FiberBlock& fiber);

// One wait for the end; false when one of `accepts` was asked first.
// Call from: who has the handle, any thread. Parks.
bool wait_until_done(FiberBlock& fiber, unsigned accepts);

// The handle is gone; a result that nobody took is destroyed. Call from: any thread. May run user code.
void drop_handle(FiberBlock& fiber);

}  // namespace weft::sched
