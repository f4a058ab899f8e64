#include "tests/model/relacy_fibers.h"

#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>

#include "runtime/base/check.h"
#include "runtime/sched/core.h"
#include "runtime/sched/foreign_waiter.h"

namespace weft::relacy {
namespace {

// The runtime's functions are members of objects that do not exist here; none of those that are replaced
// below looks at its object.
template <class T>
T& nobody() {
  alignas(T) static std::byte storage[sizeof(T)];
  return reinterpret_cast<T&>(storage);
}

// The blocks of fibers lie at the beginning of a Fiber.
Fiber& of(sched::FiberBlock& block) { return reinterpret_cast<Fiber&>(block); }

}  // namespace

void Fibers::leave(sched::Worker::Commit commit, void* argument) {
  Fiber& fiber = *running();
  fiber.registers.write();
  commit(nobody<sched::Worker>(), fiber.block, argument);
  while (fiber.queued.load(std::memory_order_acquire) == 0) {
    if (tend_) tend_();
    spin_hint();
  }
  fiber.queued.store(0, std::memory_order_relaxed);
}

void Fibers::make_ready(sched::FiberBlock& block) {
  of(block).registers.write();
  const std::uint32_t before = of(block).queued.exchange(1, std::memory_order_release);
  RL_ASSERT(before == 0);
}

void request(sched::FiberBlock& block, sched::Request what) {
  sched::WakeBatch batch;
  batch.request(block, what);
  batch.deliver();
}

}  // namespace weft::relacy

// ---- What the protocols call, and the tests replace.

void weft::base::check_failed(const char*, int, const char*, const char* message) {
  std::cout << message << "\n";
  RL_ASSERT(false);
  std::abort();  // relacy does not come back
}

namespace weft::sched {

using relacy::Fibers;

FiberBlock* current_fiber() {
  relacy::Fiber* fiber = Fibers::current().running();
  return fiber == nullptr ? nullptr : &fiber->block;
}
Worker* current_worker() { return nullptr; }  // so that deliver() goes through the core

void Worker::leave(Commit commit, void* argument) { Fibers::current().leave(commit, argument); }
void Worker::make_ready(FiberBlock& fiber) { Fibers::current().make_ready(fiber); }

Core& Core::of(const FiberBlock&) { return relacy::nobody<Core>(); }
void Core::inject(FiberBlock& fiber) { Fibers::current().make_ready(fiber); }
void Core::send_ready(FiberBlock& fiber, int) { Fibers::current().make_ready(fiber); }
void Core::send_message(FiberBlock& fiber, int) { Fibers::current().send_message(fiber); }
void Core::arm_outside(Timer&, std::int64_t, std::int64_t) {}

ForeignWaiter& ForeignWaiter::of_this_thread() { return Fibers::current().foreign_waiter(); }
void ForeignWaiter::wait() {
  while (!notified()) base::spin_hint();
}
void ForeignWaiter::notify() { set_notified(); }

void log(const Core*, LogLevel, std::string_view) {}
std::string describe(FiberBlock&) { return "a fiber"; }

}  // namespace weft::sched
