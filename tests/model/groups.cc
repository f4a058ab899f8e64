#include "tests/model/groups.h"

#include <exception>
#include <new>
#include <string>
#include <string_view>
#include <utility>

#include "runtime/sched/core.h"
#include "runtime/sched/wake_batch.h"
#include "tests/model/blocking.h"

namespace weft::model {
namespace {

Groups* current_groups = nullptr;

}  // namespace

Groups::Groups(Schedule& schedule, int workers) : fibers_(schedule, workers), root_(make(nullptr)) {
  current_groups = this;
  schedule.name(root_, "root");
  schedule.name(timers_, "timers");
  fibers_.set_ended(
      [](sched::FiberBlock& block, sched::WakeBatch& batch) { block.group->ended(block, batch); });
}

Groups::~Groups() {
  current_groups = nullptr;
  if (std::uncaught_exceptions() != 0) return;  // the schedule failed
  while (!places_.empty()) {
    in(places_.back()).~Group();
    places_.pop_back();
  }
}

Groups& Groups::current() { return *current_groups; }

sched::Group& Groups::in(Place& place) {
  return *std::launder(reinterpret_cast<sched::Group*>(place.bytes));
}

sched::Group& Groups::make(sched::Group* parent, const sched::Group::Options& options) {
  Place& place = places_.emplace_back();
  return *::new (place.bytes) sched::Group(&Fibers::core(), parent, options);
}

sched::FiberBlock& Groups::add(const char* name, sched::Group& group,
                               std::function<void()> function) {
  sched::FiberBlock& block = fibers_.add_free(name, std::move(function));
  launch(block, group);
  return block;
}

void Groups::launch(sched::FiberBlock& block, sched::Group& group) {
  block.group = &group;
  fibers_.begin(block);
  group.add(block);
  fibers_.enqueue(block);
}

void Groups::cancel_by_handle(sched::FiberBlock& block) {
  sched::WakeBatch batch;
  batch.request_end(block);
  batch.deliver();
  fibers_.drop_reference(block);
}

void Groups::pass_time() {
  const auto armed = [this] { return timers_.earliest() <= kDeadlineNs; };
  block_until([&] { return armed() || fibers_.all_ended(); });
  sched::WakeBatch batch;
  timers_.fire_due(kDeadlineNs, batch);
  batch.deliver();
}

}  // namespace weft::model

// ---- What group.cc calls, and the models replace.

namespace weft::sched {

void Core::arm_outside(Timer& timer, std::int64_t deadline_ns, std::int64_t now_ns) {
  model::Groups::current().timers().arm_outside(timer, deadline_ns, now_ns);
}

void log(const Core*, LogLevel, std::string_view) {}
std::string describe(FiberBlock&) { return "a fiber"; }

}  // namespace weft::sched
