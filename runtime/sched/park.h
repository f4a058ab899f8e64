// Parking: what a commit step does on the worker's stack, once the fiber has left its own.
//
//   std::uint64_t state = word.lock();
//   WaitNode node;
//   if (wait(word, state, node, kCancel)) ...     // claimed by a waker, who gave node.item
//
// The order is the protocol. The fiber links its node while it holds the object's lock, and leaves with
// the lock held. Only then, in the commit step, does its word change to kParked, and only after that is
// the lock given back. So no waker sees the node before the fiber has left its stack, and a request that
// came just before is found by the change itself. [park]
#pragma once

#include <cstdint>

#include "runtime/base/plant.h"
#include "runtime/sched/fiber.h"
#include "runtime/sched/object_word.h"
#include "runtime/sched/wait_list.h"

namespace weft::sched {

// The commit step of a wait for an object. It lies on the fiber's stack, so finish() copies it first.
struct ObjectPark {
  ObjectWord* word;
  std::uint64_t state;  // what the unlock publishes: the node is linked in it
  unsigned accepts;

  // Returns whether the fiber is parked; if not, the caller makes it runnable again.
  // Call from: the worker, on its own stack.
  static bool finish(const ObjectPark& on_fiber_stack, FiberBlock& fiber) {
    const ObjectPark park = on_fiber_stack;
    if constexpr (base::planted(14)) {
      park.word->unlock(park.state);
      return fiber.claim.park(park.accepts);
    }
    const bool parked = fiber.claim.park(park.accepts);
    park.word->unlock(park.state);  // [park] the last touch of the object
    return parked;
  }
};

// Takes part in the wait of an object whose `word` the caller has locked, in state `state`: links `node`
// and parks (a fiber) or blocks (any other thread) until the node is claimed or one of `accepts` is
// asked. Returns whether it was claimed; if not, the node is off the list, and the caller looks at the
// object's state before it reports an interruption. The lock is given back either way.
// Call from: any thread. Parks.
bool wait(ObjectWord& word, std::uint64_t state, WaitNode& node, unsigned accepts);

// One wait that nothing interrupts, for those that look at the object's state again afterwards: comes back
// with the word locked. Requires: the object outlives the wait. Call from: any thread. Parks.
std::uint64_t wait_and_lock(ObjectWord& word, std::uint64_t state);

}  // namespace weft::sched
