#include "tests/model/fibers.h"

#include <utility>

#include "runtime/sched/core.h"
#include "runtime/sched/foreign_waiter.h"
#include "runtime/sched/operation_wait.h"
#include "runtime/sched/wake_batch.h"
#include "tests/model/blocking.h"

namespace weft::model {
namespace {

constexpr std::array kWorkerNames = {"worker 0", "worker 1", "worker 2"};

Fibers* current_fibers = nullptr;

// The runtime's functions are members of objects that the models do not have; none of those that are
// replaced below looks at its object. A visit of the core counts in it, which harms nobody.
template <class T>
T& nobody() {
  alignas(T) static std::byte storage[sizeof(T)];
  return reinterpret_cast<T&>(storage);
}

}  // namespace

Fibers::Fibers(Schedule& schedule, int workers) : schedule_(schedule) {
  current_fibers = this;
  for (int i = 0; i < workers; ++i) {
    schedule.add(kWorkerNames[static_cast<std::size_t>(i)], [this, i] { work(i); });
  }
}

Fibers::~Fibers() { current_fibers = nullptr; }

Fibers& Fibers::current() { return *current_fibers; }

sched::Core& Fibers::core() { return nobody<sched::Core>(); }

sched::Core& Fibers::core_of(const sched::FiberBlock& block) {
  check(block.claim.load().runtime() == of(block).runtime,
        "a fiber was looked for in a runtime that is not its own");
  return core();
}

sched::FiberBlock& Fibers::add(const char* name, std::function<void()> function) {
  sched::FiberBlock& block = add_free(name, std::move(function));
  begin(block);
  enqueue(block);
  return block;
}

sched::FiberBlock& Fibers::add_free(const char* name, std::function<void()> function) {
  Fiber& fiber = fibers_.emplace_back();
  fiber.function = std::move(function);
  schedule_.name(fiber.block.claim, name);
  schedule_.add(name, [this, &fiber] {
    by_thread_[static_cast<std::size_t>(current_thread())] = &fiber;
    while (true) {
      block_until([&] { return fiber.place == Place::kOnStack || all_ended(); });
      if (fiber.place != Place::kOnStack) return;
      fiber.function();
      fiber.commit = &commit_exit;
      fiber.place = Place::kLeft;
    }
  });
  return fiber.block;
}

void Fibers::begin(sched::FiberBlock& block, unsigned runtime) {
  Fiber& fiber = of(block);
  check(std::exchange(fiber.given_back, false), "a block was used again before it was free");
  fiber.runtime = runtime;
  fiber.references.store(1, std::memory_order_relaxed);
  ++live_;
  block.claim.begin(runtime);
}

void Fibers::enqueue(sched::FiberBlock& block) {
  Fiber& fiber = of(block);
  fiber.place = Place::kQueued;
  ready_.push_back(&fiber);
}

Fibers::Fiber& Fibers::of(const sched::FiberBlock& block) {
  for (Fiber& fiber : current_fibers->fibers_) {
    if (&fiber.block == &block) return fiber;
  }
  check(false, "a block that is no fiber's");
  __builtin_unreachable();
}

sched::FiberBlock* Fibers::running() const {
  Fiber* fiber = by_thread_[static_cast<std::size_t>(current_thread())];
  return fiber == nullptr ? nullptr : &fiber->block;
}

void Fibers::leave(sched::Worker::Commit commit, void* argument) {
  Fiber& fiber = of(*running());
  fiber.commit = commit;
  fiber.argument = argument;
  fiber.place = Place::kLeft;
  block_until([&] { return fiber.place == Place::kOnStack; });
}

void Fibers::make_ready(sched::FiberBlock& block) {
  const sched::FiberState state = block.claim.load().state();
  Fiber& fiber = of(block);
  check(fiber.place != Place::kOnStack && fiber.place != Place::kLeft,
        "a fiber was made runnable before it had left its stack");
  check(fiber.place == Place::kAway, "a fiber was made runnable twice");
  check(state == sched::FiberState::kRunnable,
        "a fiber was made runnable that its word calls parked");
  fiber.place = Place::kQueued;
  ready_.push_back(&fiber);
}

void Fibers::take_reference(sched::FiberBlock& block) {
  of(block).references.fetch_add(1, std::memory_order_relaxed);
}

void Fibers::request(sched::FiberBlock& block, sched::Request what) {
  sched::WakeBatch batch;
  batch.request(block, what);
  batch.deliver();
}

// ---- Workers

void Fibers::work(int worker) {
  while (true) {
    block_until([&] { return has_work(worker) || all_ended(); });
    if (!has_work(worker)) return;
    tend_ring(worker);
    if (ready_.empty()) continue;
    Fiber& fiber = *ready_.front();
    ready_.pop_front();
    run(fiber, worker);
  }
}

bool Fibers::has_work(int worker) const {
  const Ring& ring = rings_[static_cast<std::size_t>(worker)];
  return !ready_.empty() || !ring.inbox.empty() ||
         (ring.driver != nullptr &&
          (ring.driver->prepared() != 0 || ring.driver->completions_waiting()));
}

void Fibers::run(Fiber& fiber, int worker) {
  fiber.worker = worker;
  if (fiber.block.frame == nullptr) {  // as bind_stack()
    fiber.block.frame = &fiber.frame;
  }
  fiber.place = Place::kOnStack;
  block_until([&] { return fiber.place != Place::kOnStack; });
  fiber.place = Place::kAway;
  fiber.commit(nobody<sched::Worker>(), fiber.block, fiber.argument);
}

void Fibers::set_driver(int worker, sched::IoDriver& driver) {
  rings_[static_cast<std::size_t>(worker)].driver = &driver;
}

// As Worker::collect(), but messages may also come first.
void Fibers::tend_ring(int worker) {
  Ring& ring = rings_[static_cast<std::size_t>(worker)];
  if (ring.driver == nullptr) return;
  sched::WakeBatch batch;
  if (choose(2) == 0) ring.driver->poll(batch);
  auto messages = ring.inbox.take_all();
  while (sched::FiberBlock* block = messages.pop()) {
    check(!of(*block).given_back, "a message came for a block that was given back");
    const sched::ClaimWord::Received received =
        sched::receive_message(*block, *ring.driver, static_cast<unsigned>(worker));
    if (received.message == sched::ClaimWord::Message::kForward) {
      send_message(*block, static_cast<int>(received.ring));
    } else if (received.message == sched::ClaimWord::Message::kRelease) {
      give_back(*block);
    }
  }
  batch.deliver();
}

void Fibers::send_message(sched::FiberBlock& block, int worker) {
  rings_[static_cast<std::size_t>(worker)].inbox.push(&block);
}

void Fibers::perform(sched::Operation& operation, unsigned accepts) {
  Fiber& fiber = of(*running());
  operation.fiber = &fiber.block;
  operation.accepts = accepts;
  fiber.frame.operation = &operation;
  rings_[static_cast<std::size_t>(fiber.worker)].driver->prepare(operation);
  leave(&commit_operation, &operation);
  fiber.frame.operation = nullptr;
}

void Fibers::commit_operation(sched::Worker&, sched::FiberBlock& block, void* operation) {
  Fibers& self = current();
  const int worker = of(block).worker;
  sched::IoDriver& driver = *self.rings_[static_cast<std::size_t>(worker)].driver;
  if (!park_on_operation(*static_cast<sched::Operation*>(operation), block, driver,
                         static_cast<unsigned>(worker))) {
    self.make_ready(block);
  }
}

// As Worker::commit_exit() and finish_fiber().
void Fibers::commit_exit(sched::Worker&, sched::FiberBlock& block, void*) {
  Fibers& self = current();
  block.frame = nullptr;
  sched::WakeBatch batch;
  self.exit_ ? self.exit_(block, batch) : self.drop_reference(block);
  batch.deliver();
}

void Fibers::drop_reference(sched::FiberBlock& block) {
  if (of(block).references.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  check(block.claim.load().state() == sched::FiberState::kRunnable && block.frame == nullptr,
        "a block was freed too early");
  if (block.claim.free()) give_back(block);  // or the receiver of the last message does
}

void Fibers::give_back(sched::FiberBlock& block) {
  check(!std::exchange(of(block).given_back, true), "a block was given back twice");
  if (freed_) freed_(block);
  --live_;
}

}  // namespace weft::model

// ---- What the protocols call, and the models replace.

namespace weft::sched {

using model::Fibers;

FiberBlock* current_fiber() { return Fibers::current().running(); }
Worker* current_worker() { return nullptr; }  // so that deliver() goes through the core

void Worker::leave(Commit commit, void* argument) { Fibers::current().leave(commit, argument); }
void Worker::make_ready(FiberBlock& fiber) { Fibers::current().make_ready(fiber); }

Core& Core::of(const FiberBlock& fiber) { return Fibers::core_of(fiber); }
void Core::inject(FiberBlock& fiber) { Fibers::current().make_ready(fiber); }
void Core::send_ready(FiberBlock& fiber, int) { Fibers::current().make_ready(fiber); }
void Core::send_message(FiberBlock& fiber, int worker) {
  Fibers::current().send_message(fiber, worker);
}

ForeignWaiter& ForeignWaiter::of_this_thread() { return Fibers::current().foreign_waiter(); }
void ForeignWaiter::wait() {
  model::block_until([this] { return notified(); });
}
void ForeignWaiter::notify() { set_notified(); }

}  // namespace weft::sched
