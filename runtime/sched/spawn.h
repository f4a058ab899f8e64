// Spawning: a control block for a new fiber, and its way into a group and a queue.
//
//   FiberBlock* fiber = new_fiber(group, code, options, site);   // null: no memory
//   ... the closure is made in fiber_storage(*fiber) ...
//   launch_fiber(*fiber);                                        // may run from now on
//
// A fiber gets no stack here: it waits for one until a worker takes it up. fiber_life.h goes on.
#pragma once

#include <weft/fiber.h>
#include <weft/internal/fiber_code.h>

#include <cstddef>

#include "runtime/sched/block_pool.h"
#include "runtime/sched/core.h"
#include "runtime/sched/group.h"
#include "runtime/sched/worker.h"

namespace weft::sched {

// The same without haste: from a thread that is no worker, with a name or a stack size of its own, or
// with a closure too large for a block. Sets the traits that follow from it.
FiberBlock* new_block(const weft::internal::FiberCode& code, const SpawnOptions& options,
                      FiberTraits& traits);

// A block for a fiber of `group`, with room for its closure. It belongs to the fiber and
// to its handle. Call from: any thread. Never parks.
inline FiberBlock* new_fiber(Group& group, const weft::internal::FiberCode& code,
                             const SpawnOptions& options, Site site) {
  FiberTraits traits{(site.line & FiberTraits::kLine) |
                     (options.pinned ? FiberTraits::kPinned : 0) |
                     (options.preserve_fp_control ? FiberTraits::kKeepsFpControl : 0)};
  Worker* worker = current_worker();
  FiberBlock* fiber;
  if (__builtin_expect(worker != nullptr && options.name.empty() && options.stack_size == 0 &&
                           code.bytes <= BlockCache::kStorageMax &&
                           code.alignment <= alignof(void*),
                       1)) {
    WorkerSection section;
    fiber = worker->blocks()->allocate(code.bytes, 0);
  } else {
    fiber = new_block(code, options, traits);
  }
  if (__builtin_expect(fiber == nullptr, 0)) return nullptr;
  fiber->code = &code;
  fiber->group = &group;
  fiber->join.unlock(0);
  fiber->file = site.file;
  fiber->traits = traits;
  return fiber;
}

// Puts a fiber whose closure is in place into its group and into a queue. Call from: any thread.
inline void launch_fiber(FiberBlock& fiber) {
  Core& core = *fiber.group->core();
  fiber.claim.begin(core.number());
  fiber.group->add(fiber);
  happens_before(&fiber);
  Worker* worker = current_worker();
  if (__builtin_expect(worker != nullptr && &worker->core() == &core, 1)) {
    worker->push_unstarted(fiber);
  } else {
    core.fiber_spawned_outside();
    core.inject(fiber);
  }
}

// Frees a block whose closure was never made. Call from: who called new_fiber.
void abandon_fiber(FiberBlock& fiber);

}  // namespace weft::sched
