// Waiting for an operation in a ring, and how its end is hastened: both sides of the protocol.
//
//   if (!park_on_operation(operation, fiber, driver, ring)) push_ready(fiber);     // a commit step
//   switch (receive_message(fiber, driver, ring).message) ...                      // from the inbox
//
// Only the worker that owns a ring may touch it, so who asks something of a fiber that waits in one sends
// its owner a message: the block itself, which says no more than "look at this block's claim word". The
// wait may be over by then, or another one in another ring, whose owner must then hear of it. [claim]
//
// Promises: a request that came before the park is found by the commit step, a later one by a message;
// either the operation is taken back before the kernel has it, or the fiber waits for its completion.
#pragma once

#include "runtime/sched/fiber.h"
#include "runtime/sched/io_driver.h"

namespace weft::sched {

// The commit step of a wait for `operation`, which was prepared in `driver`, the one of worker `ring`.
// Returns whether the fiber is parked; if not, the operation was withdrawn, its result says so, and the
// caller makes the fiber runnable again. Call from: the worker, on its own stack.
bool park_on_operation(Operation& operation, FiberBlock& fiber, IoDriver& driver, unsigned ring);

// What worker `ring` does with a message: cancels the operation if the fiber waits for it here. What the
// caller must do is in the result: send the block on, or give it back to its pool.
// Call from: the worker.
ClaimWord::Received receive_message(FiberBlock& fiber, IoDriver& driver, unsigned ring);

}  // namespace weft::sched
