#include "runtime/sched/group.h"

#include <algorithm>
#include <array>
#include <new>
#include <span>
#include <string>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/base/plant.h"
#include "runtime/sched/core.h"
#include "runtime/sched/park.h"
#include "runtime/sched/status.h"
#include "runtime/sched/worker.h"

namespace weft::sched {

// Made by the first error: most groups never have one.
namespace {

// A line for which there is no memory is left out: whoever is told here goes on.
template <class Make>
void log_made(const Core* core, LogLevel level, Make make) noexcept {
  try {
    log(core, level, make());
  } catch (const std::bad_alloc&) {
    log(core, level, "no memory for a line of the log");
  }
}

}  // namespace

struct Group::Errors {
  static constexpr std::size_t kOthersMax = 8;

  absl::Status first;
  std::array<absl::Status, kOthersMax> others;
  std::size_t count = 0;
  std::shared_ptr<ChildException> exception;
};

Group::Group(Core* core, Group* parent, const Options& options)
    : core_(core), parent_(parent), options_(options) {
  if (parent_ != nullptr) parent_->attach(*this);
}

Group::~Group() {
  leave_tree();
  WEFT_CHECK(count_ == 0, "a group was destroyed while its fibers run: wait for them first");
}

void Group::leave_tree() {
  if constexpr (base::planted(20)) {
    if (maker_ != nullptr) cover_.leave();
  }
  deadline_.disarm();
  if (maker_ != nullptr) {
    const std::uint64_t state = word_.lock();
    maker_ = nullptr;  // [level] left: whoever cancels from now on leaves the maker alone
    word_.unlock(state);
    if constexpr (!base::planted(20)) cover_.leave();
  }
  if (parent_ != nullptr) std::exchange(parent_, nullptr)->detach(*this);
}

std::exception_ptr Group::take_unseen_exception() {
  if (errors_ == nullptr) return nullptr;
  const std::shared_ptr<ChildException>& exception = errors_->exception;
  // acq_rel: as in report().
  if (exception != nullptr && !exception->taken.exchange(true, std::memory_order_acq_rel)) {
    if (std::uncaught_exceptions() == 0) return exception->pointer;
    log_made(core_, LogLevel::kError, [&] {
      return std::string("group ") + options_.name +
             ": an exception of a fiber is lost, because another one unwinds";
    });
  } else if (errors_->count != 0 && !options_.log_errors) {
    log_made(core_, LogLevel::kWarning, [&] {
      return std::string("group ") + options_.name +
             ": nobody looked at the error of a fiber: " + errors_->first.ToString();
    });
  }
  return nullptr;
}

void Group::cover(FiberBlock& maker) {
  cover_.enter(maker, this);
  const std::uint64_t state = word_.lock();  // we are in the parent's list: it may be cancelling
  maker_ = &maker;
  if (is_cancelled()) maker.claim.request(kCancel);
  word_.unlock(state);
}

void Group::set_deadline(std::int64_t deadline_ns, std::int64_t now_ns) {
  Worker* worker = current_worker();
  if (worker != nullptr && &worker->core() == core_) {
    worker->timers().arm(deadline_, deadline_ns, now_ns);
  } else {
    core_->arm_outside(deadline_, deadline_ns, now_ns);
  }
}

void Group::on_deadline(Timer& timer, std::int64_t, WakeBatch& batch) {
  static_cast<Deadline&>(timer).group.cancel(Interruption::kDeadlineExceeded, batch);
}

void Group::attach(Group& subgroup) {
  const std::uint64_t state = word_.lock();
  subgroups_.push_back(&subgroup);
  const Interruption why = cover_.raised();
  if (why != Interruption::kNone) subgroup.cover_.raise(why);
  word_.unlock(state);
}

void Group::detach(Group& subgroup) {
  const std::uint64_t state = word_.lock();
  subgroups_.remove(&subgroup);
  word_.unlock(state);
}

void Group::orphan_subgroups() {
  const std::uint64_t state = word_.lock();
  while (Group* subgroup = subgroups_.pop_front()) {
    subgroup->parent_ = nullptr;
    subgroup->core_ = nullptr;
    subgroup->deadline_.home = nullptr;  // gone with its worker
  }
  word_.unlock(state);
}

void Group::record(FiberBlock& fiber, const absl::Status* error,
                   std::shared_ptr<ChildException> exception) noexcept {
  // That a cancelled child says so is no error.
  if (error != nullptr && is_interruption(*error) && fiber.claim.asked(kCancel)) return;
  absl::Status copy;
  if (error != nullptr) {
    copy = status_or_bare(error->code(), [error] { return deep_copy(*error); });
    // Whoever still has the handle will see it there.
    const bool unseen = (fiber.join.load() & FiberBlock::kDetached) != 0;
    if (options_.log_errors && unseen) {
      log_made(core_, LogLevel::kWarning,
               [&] { return describe(fiber) + " ended with " + copy.ToString(); });
    }
  }
  keep(std::move(copy), std::move(exception));
  if (!options_.keep_going) cancel();
}

void Group::record_unmade(const absl::Status& error) noexcept {
  keep(error, nullptr);
  if (options_.log_errors) log_made(core_, LogLevel::kWarning, [&] { return error.ToString(); });
  if (!options_.keep_going) cancel();
}

// Made before the lock, and perhaps for nothing: nothing may fail under it.
void Group::keep(absl::Status error, std::shared_ptr<ChildException> exception) {
  std::unique_ptr<Errors> made(new (std::nothrow) Errors);
  const std::uint64_t state = word_.lock();
  if (errors_ == nullptr) errors_ = std::move(made);
  if (errors_ == nullptr) {
    unkept_ = error.ok() ? absl::StatusCode::kResourceExhausted : error.code();
  } else if (exception != nullptr) {
    if (errors_->exception == nullptr) errors_->exception = std::move(exception);
  } else if (++errors_->count == 1) {
    errors_->first = std::move(error);
  } else if (errors_->count - 2 < Errors::kOthersMax) {
    errors_->others[errors_->count - 2] = std::move(error);
  }
  word_.unlock(state);
}

void Group::cancel(Interruption why) {
  if (core_ == nullptr) return;
  const Core::Visit visit(*core_);
  WakeBatch batch;
  cancel(why, batch);
  batch.deliver();
}

template <class Visit>
void Group::walk_down(Visit visit) {
  Group* group = this;
  Group* up = nullptr;
  for (;;) {
    group->way_back_ = {up, group->word_.lock()};
    Group* next = visit(*group) ? group->subgroups_.front() : nullptr;
    up = group;
    while (next == nullptr) {
      const WayBack back = group->way_back_;
      if (group != this) next = decltype(subgroups_)::after(group);  // under the lock of back.up
      group->word_.unlock(back.state);
      if (group == this) return;
      up = group = back.up;
    }
    group = next;
  }
}

void Group::cancel(Interruption why, WakeBatch& batch) {
  walk_down([why, &batch](Group& group) {
    if (!group.cover_.raise(why)) return false;
    for (FiberBlock& fiber : group.fibers_) batch.request(fiber, kCancel);
    if (group.maker_ != nullptr) batch.request(*group.maker_, kCancel);
    return true;
  });
}

void Group::request_all(Request what, WakeBatch& batch) {
  walk_down([what, &batch](Group& group) {
    for (FiberBlock& fiber : group.fibers_) batch.request(fiber, what);
    return true;
  });
}

std::size_t Group::size() {
  const std::uint64_t state = word_.lock();
  const std::size_t count = count_;
  word_.unlock(state);
  return count;
}

// Waits for the count to become 0; false when something asked for ended the wait early.
bool Group::wait_empty(unsigned accepts) {
  while (true) {
    const std::uint64_t state = word_.lock();
    if (count_ == 0) {
      word_.unlock(state);
      return true;
    }
    WaitNode node;
    // What was added meanwhile is waited for as well: the next look is under the lock again.
    if (!wait(word_, state, node, accepts)) return false;
  }
}

void Group::wait_until_empty() { wait_empty(0); }

absl::Status Group::join() {
  FiberBlock* self = current_fiber();
  if (self == nullptr) {
    wait_until_empty();
    return report();
  }
  if (self->group == this) {
    return absl::FailedPreconditionError(
        "join: a fiber cannot wait for the group that it belongs to");
  }
  const bool all_ended = wait_empty(kCancel);
  if (maker_ != self) return all_ended ? report() : status_of(report_interruption(*self));

  // A scope: only what was asked from outside its own level is reported. That comes first even when all
  // have ended by now: it may be why they have.
  const Interruption outer = report_interruption_from(cover_.outer(), *self);
  if (outer != Interruption::kNone) cancel(outer);
  wait_until_empty();
  absl::Status status = report();
  return status.ok() ? status_of(outer) : status;
}

absl::Status Group::report() {
  const std::uint64_t state = word_.lock();
  const std::unique_ptr<Errors> errors = std::exchange(errors_, nullptr);
  const absl::StatusCode unkept = std::exchange(unkept_, absl::StatusCode::kOk);
  word_.unlock(state);
  if (errors != nullptr && errors->exception != nullptr &&
      // acq_rel: only one of this join and the fiber's own takes it.
      !errors->exception->taken.exchange(true, std::memory_order_acq_rel)) {
    std::rethrow_exception(errors->exception->pointer);
  }
  if (errors != nullptr && errors->count != 0) {
    const std::size_t others = errors->count - 1;
    const std::span<const absl::Status> kept(errors->others.data(),
                                             std::min(others, Errors::kOthersMax));
    return status_or_bare(errors->first.code(),
                          [&] { return with_others(errors->first, kept, others); });
  }
  if (unkept != absl::StatusCode::kOk) return absl::Status(unkept, "");
  return cover_.raised() == Interruption::kDeadlineExceeded ? status_of(cover_.raised())
                                                            : absl::OkStatus();
}

}  // namespace weft::sched
