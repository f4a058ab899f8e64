#include "runtime/sched/park.h"

#include "runtime/sched/foreign_waiter.h"
#include "runtime/sched/worker.h"

namespace weft::sched {
namespace {

[[maybe_unused]] void commit_wait(Worker& worker, FiberBlock& fiber, void* park) {
  if (!ObjectPark::finish(*static_cast<ObjectPark*>(park), fiber)) worker.make_ready(fiber);
}

bool wait_as_thread(ObjectWord& word, std::uint64_t state, WaitNode& node) {
  ForeignWaiter& self = ForeignWaiter::of_this_thread();
  self.prepare();
  node.foreign = &self;
  WaitList waiting(ObjectWord::waiters(state));
  waiting.push_back(node);
  word.unlock(ObjectWord::with_waiters(state, waiting.first()));
  self.wait();
  return true;
}

}  // namespace

bool wait(ObjectWord& word, std::uint64_t state, WaitNode& node, unsigned accepts) {
  FiberBlock* self = current_fiber();
  if (self == nullptr) return wait_as_thread(word, state, node);

  node.fiber = self;
  node.epoch = self->claim.epoch();
  WaitList waiting(ObjectWord::waiters(state));
  waiting.push_back(node);
  ObjectPark park{&word, ObjectWord::with_waiters(state, waiting.first()), accepts};
  if constexpr (base::planted(15)) {
    if (ObjectPark::finish(park, *self)) Worker::leave([](Worker&, FiberBlock&, void*) {}, nullptr);
  } else {
    Worker::leave(&commit_wait, &park);
  }
  if (node.claimed) return true;

  // Nobody chose us, and from now on nobody can: a waker that finds our node skips it. It may have
  // taken the node off by now, or not.
  const std::uint64_t now = word.lock();
  WaitList still(ObjectWord::waiters(now));
  still.remove(node);
  word.unlock(ObjectWord::with_waiters(now, still.first()));
  return false;
}

std::uint64_t wait_and_lock(ObjectWord& word, std::uint64_t state) {
  WaitNode node;
  wait(word, state, node, 0);
  return word.lock();
}

}  // namespace weft::sched
