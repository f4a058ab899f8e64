// <weft/scope.h> over the scheduler's groups.
#include <weft/scope.h>
#include <weft/time.h>

#include <new>

#include "runtime/base/check.h"
#include "runtime/sched/core.h"
#include "runtime/sched/process.h"
#include "runtime/sched/spawn.h"
#include "runtime/sched/status.h"
#include "runtime/sched/worker.h"

namespace weft {
namespace {

sched::Group& group_in(std::byte* state) {
  return *std::launder(reinterpret_cast<sched::Group*>(state));
}

sched::Core* current_core() {
  sched::Worker* worker = sched::current_worker();
  return worker == nullptr ? nullptr : &worker->core();
}

sched::Group::Options group_options(const ScopeOptions& options) {
  return {.name = options.name.empty() ? "(unnamed)" : options.name.data(),
          .keep_going = options.on_error == OnError::kKeepGoing};
}

void apply_timeout(sched::Group& group, absl::Duration timeout) {
  const Deadline deadline = Deadline::in(timeout);
  if (deadline == Deadline()) return;
  group.set_deadline(deadline.nanoseconds(), os::now_ns());
}

// The group whose cancellation reaches a scope that is made now: the scope around it on this fiber, or
// the fiber's own group.
sched::Group& enclosing_group(const sched::FiberBlock& fiber) {
  for (const sched::Level* level = fiber.frame->level; level != nullptr; level = level->outer()) {
    if (sched::Group* group = level->group()) return *group;
  }
  return *fiber.group;
}

}  // namespace

FiberGroup::FiberGroup(ScopeOptions options, Site) {
  static_assert(sizeof(state_) >= sizeof(sched::Group));
  sched::Core* core = current_core();
  auto* group = ::new (state_)
      sched::Group(core, core == nullptr ? nullptr : &core->all(), group_options(options));
  if (core != nullptr) apply_timeout(*group, options.timeout);
}

FiberGroup::FiberGroup(Runtime& runtime, ScopeOptions options, Site) {
  sched::Core* core = sched::core_of(runtime);
  WEFT_CHECK(core != nullptr, "a FiberGroup of a runtime that has been stopped");
  auto* group = ::new (state_) sched::Group(core, &core->all(), group_options(options));
  apply_timeout(*group, options.timeout);
}

FiberGroup::FiberGroup(Root, sched::Core& core) {
  ::new (state_)
      sched::Group(&core, &core.all(), {.name = "root", .keep_going = true, .log_errors = true});
}

FiberGroup::FiberGroup(Lexical, ScopeOptions options, Site) {
  sched::FiberBlock* self = sched::current_fiber();
  WEFT_CHECK(self != nullptr,
             "a Scope covers the waits of a fiber: there is none on this thread; "
             "use a FiberGroup");
  auto* group =
      ::new (state_) sched::Group(current_core(), &enclosing_group(*self), group_options(options));
  group->cover(*self);
  apply_timeout(*group, options.timeout);
}

FiberGroup::~FiberGroup() {
  if (sched::is_exiting()) return;
  sched::Group& group = group_in(state_);
  if (group.size() != 0) {
    group.cancel();
    group.wait_until_empty();
  }
  group.leave_tree();
  const std::exception_ptr unseen = group.take_unseen_exception();
  group.~Group();
  // Out of a destructor, and so to std::terminate, whose handler can say which exception it is.
  if (unseen != nullptr) std::rethrow_exception(unseen);
}

internal::Prepared FiberGroup::prepare(const internal::FiberCode& code, const SpawnOptions& options,
                                       Site site) {
  WEFT_CHECK(!sched::is_forked_child(),
             "a forked child may only exec or _exit: no fiber starts here");
  sched::Group& group = group_in(state_);
  if (group.core() == nullptr) return {nullptr, nullptr};
  sched::FiberBlock* fiber = sched::new_fiber(group, code, options, site);
  if (__builtin_expect(fiber == nullptr, 0)) {
    group.record_unmade(sched::status_or_bare(absl::StatusCode::kResourceExhausted, [] {
      return absl::ResourceExhaustedError("spawn: no memory for a control block");
    }));
    return {nullptr, nullptr};
  }
  return {fiber, sched::fiber_storage(*fiber)};
}

internal::FiberHandle FiberGroup::unmade() const {
  return {nullptr, group_in(state_).core() == nullptr ? absl::StatusCode::kFailedPrecondition
                                                      : absl::StatusCode::kResourceExhausted};
}

void FiberGroup::launch(sched::FiberBlock& fiber) { sched::launch_fiber(fiber); }
void FiberGroup::abandon(sched::FiberBlock& fiber) { sched::abandon_fiber(fiber); }

absl::Status FiberGroup::join() { return group_in(state_).join(); }
void FiberGroup::cancel() { group_in(state_).cancel(); }
bool FiberGroup::cancelled() const { return group_in(state_).is_cancelled(); }
std::size_t FiberGroup::size() const { return group_in(state_).size(); }

}  // namespace weft
