#include "tests/model/blocking.h"

#include "tests/model/execution.h"

namespace weft::model {
namespace {

Execution& current_execution() {
  Execution* execution = Execution::current();
  if (execution == nullptr || !hooks.exploring) {
    check(false, "a model thread's primitive was used outside of a model thread");
  }
  return *execution;
}

void note(Operation operation, const void* address, std::size_t before, std::size_t after) {
  if (hooks.tracing) record(operation, address, {before, false}, {after, false});
}

// Sleeps on `count` until it is not zero; between that and the return nobody else runs.
template <class Count>
void wait_until_positive(const Count& count, const char* what) {
  Execution& execution = current_execution();
  execution.step(&count);
  while (count == 0) {
    note(Operation::kSleep, &count, 0, 0);
    execution.sleep_on(&count, what);
  }
}

}  // namespace

void Event::post() {
  if (hooks.exploring) switch_point(this);
  note(Operation::kPost, this, posted_, 1);
  posted_ = 1;
  hooks.spinning = 0;
  if (hooks.exploring) Execution::current()->wake_sleepers(this);
}

void Event::wait() {
  wait_until_positive(posted_, "an event");
  note(Operation::kWait, this, 1, 0);
  posted_ = 0;
}

bool Event::wait_or_time_out() {
  Execution& execution = current_execution();
  if (posted_ == 0) execution.spin();
  const bool posted = posted_ != 0;
  note(Operation::kWait, this, posted_, 0);
  posted_ = 0;
  return posted;
}

void Mutex::lock() {
  if (hooks.exploring) wait_until_positive(free_, "a mutex");
  note(Operation::kWait, this, 1, 0);
  free_ = 0;
}

void Mutex::unlock() {
  if (hooks.exploring) switch_point(this);
  note(Operation::kPost, this, 0, 1);
  free_ = 1;
  hooks.spinning = 0;
  if (hooks.exploring) Execution::current()->wake_sleepers(this);
}

void Semaphore::post() {
  if (hooks.exploring) switch_point(this);
  note(Operation::kPost, this, count_, count_ + 1);
  ++count_;
  hooks.spinning = 0;
  if (hooks.exploring) Execution::current()->wake_sleepers(this);
}

void Semaphore::wait() {
  wait_until_positive(count_, "a semaphore");
  note(Operation::kWait, this, count_, count_ - 1);
  --count_;
}

void internal::block_until(bool (*predicate)(void*), void* context) {
  Execution& execution = current_execution();
  execution.step(nullptr);
  // Between the moment at which it held and our turn somebody else may have run.
  do {
    execution.sleep_until(predicate, context);
  } while (!execution.holds(predicate, context));
}

void wait_until_quiet() { current_execution().sleep_until_quiet(); }

}  // namespace weft::model
