// A fiber's life: made, bound to a stack, run to its end, counted, freed.
//
//   FiberBlock* fiber = new_fiber(group, code, options, site);   // spawn, before the closure is there
//   launch_fiber(*fiber);                                        // may run from now on
//   bind_stack(*fiber, stack, pinned_to);                        // the worker that runs it first
//   ... fiber_main on its own stack ...
//   stack = unbind_stack(*fiber); finish_fiber(*fiber, ...);     // the commit step of its exit
//
// The order at the end: result, join word, group, own reference. Whoever drops the last reference frees
// the block. [life]
#pragma once

#include <weft/fiber.h>

#include <cstddef>
#include <cstdint>

#include <absl/status/status.h>

#include "runtime/sched/block_pool.h"
#include "runtime/sched/fiber.h"
#include "runtime/sched/stack.h"
#include "runtime/sched/switch_hooks.h"
#include "runtime/sched/wake_batch.h"

namespace weft::sched {

// A block for a fiber of `group`, with room for its closure; null: no memory. Two references: the
// fiber's own and the handle's. Call from: any thread. Never parks.
FiberBlock* new_fiber(Group& group, const weft::internal::FiberCode& code,
                      const SpawnOptions& options, Site site);
// Puts a fiber whose closure is in place into its group and into a queue. Call from: any thread.
void launch_fiber(FiberBlock& fiber);
// Frees a block whose closure was never made. Call from: who called new_fiber.
void abandon_fiber(FiberBlock& fiber);

// Where the closure, and later the result, of a fiber is.
void* fiber_storage(FiberBlock& fiber);

void bind_stack(FiberBlock& fiber, Stack& stack, Worker* pinned_to);
Stack* unbind_stack(FiberBlock& fiber);

// Ends an unstarted fiber, on its own stack or on a reaper's: its closure is destroyed uncalled.
void refuse_fiber(FiberBlock& fiber, absl::Status error);

// Tells everybody that the fiber has ended. Call from: the worker, after the fiber left its stack.
void finish_fiber(FiberBlock& fiber, BlockCache* cache, WakeBatch& batch);

// Call from: any thread that holds a reference.
void drop_reference(FiberBlock& fiber, BlockCache* cache);
// The handle's reference; destroys a result that nobody took. Call from: any thread. May run user code.
void drop_handle(FiberBlock& fiber);

// ---- The switch, with what sanitizers and preserve_fp_control need around it

// Suspends `fiber` and returns the worker that resumed it. Call from: the fiber.
WEFT_AROUND_SWITCH Worker* switch_to_worker(FiberBlock& fiber, Worker& worker);

// For fibers with preserve_fp_control: keep their mxcsr and x87 control word, and put back the defaults
// for everybody else; and the reverse.
void save_fp_control(FiberBlock& fiber);
void restore_fp_control(FiberBlock& fiber);

void set_current_worker(Worker* worker);

}  // namespace weft::sched
