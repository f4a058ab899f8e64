// Groups, scopes and levels: group.cc, level.cc and timers.cc as they ship, under fibers on two model
// workers. A join returns after the last child, which touches the group no more; a cancellation reaches
// every child, also one that is just coming or parking; what an outer level asks outlives the inner
// levels, and what an inner one asks does not.
#include <array>
#include <string>

#include <absl/status/status.h>
#include <catch2/catch.hpp>

#include "runtime/base/atomic.h"
#include "runtime/base/plant.h"
#include "runtime/base/spin_lock.h"
#include "runtime/sched/group.h"
#include "runtime/sched/level.h"
#include "tests/model/blocking.h"
#include "tests/model/explore.h"
#include "tests/model/fibers.h"
#include "tests/model/groups.h"
#include "tests/model/permits.h"

namespace weft::model {
namespace {

using sched::FiberBlock;
using sched::Group;
using sched::Interruption;
using sched::kCancel;
using sched::kDrain;

// Whether the calling fiber got a permit; if not, one of its levels, its group or its handle must say why.
bool acquire(Permits& permits) {
  if (permits.acquire(kCancel)) return true;
  const FiberBlock& self = Groups::current().self();
  check(self.claim.asked(kCancel) && interruption(self) != Interruption::kNone,
        "interrupted without a reason");
  return false;
}

// Whoever joins, a fiber or a thread, destroys the group at once.
void join(Schedule& schedule) {
  Groups groups(schedule, 2);
  Group& group = groups.make(nullptr);
  schedule.name(group, "group");
  int ended = 0;
  groups.add("child", group, [&] { ++ended; });
  groups.add("failing child", group, [&] {
    const absl::Status error = absl::InternalError("");
    group.record(groups.self(), &error, nullptr);
    ++ended;
  });
  const auto join_and_destroy = [&] {
    const absl::Status status = group.join();
    check(ended == 2, "a join returned before the last child had ended");
    check(status.code() == absl::StatusCode::kInternal, "the error of a child was lost");
    group.leave_tree();
    retire(group, "a group was touched after its join had returned");
  };
  if (choose(2) == 0) {
    groups.add("joiner", groups.root(), join_and_destroy);
  } else {
    schedule.add("joiner", join_and_destroy);
  }
  schedule.run();
}

// A group is made and its children are spawned while it, or the group above it, is being cancelled. One
// child ends by itself; the others wait, and only one permit is given.
void cancel(Schedule& schedule) {
  Groups groups(schedule, 2);
  Group& above = groups.make(nullptr);
  Group* group = nullptr;
  Permits permits;
  schedule.name(above, "group above");
  schedule.name(permits, "permits");
  int got = 0;
  const auto wait = [&] {
    if (acquire(permits)) ++got;
  };
  const std::array children = {&groups.add_free("child", wait),
                               &groups.add_free("short child", [] {}),
                               &groups.add_free("other child", wait)};
  groups.add("parent", groups.root(), [&] {
    group = &groups.make(&above);
    schedule.name(*group, "group");
    for (FiberBlock* child : children) groups.launch(*child, *group);
    check(group->join().ok(), "that children were cancelled was taken for an error");
  });
  const bool from_above = choose(2) == 0;
  schedule.add("canceller", [&] {
    if (!from_above) block_until([&] { return group != nullptr; });
    (from_above ? above : *group).cancel();
  });
  if (choose(2) == 0) schedule.add("giver", [&] { permits.release(); });
  schedule.run();
  check(got + permits.count() <= 1, "a permit was given twice");
}

// A scope that ends by its deadline, or because its fiber is cancelled with its own group or by its handle,
// or by both. The fiber leaves it, perhaps with one of them upon it, and waits again.
void leave(Schedule& schedule) {
  Groups groups(schedule, 2);
  Group& outer = groups.make(nullptr);
  Permits never;
  Permits permits;
  schedule.name(outer, "outer group");
  schedule.name(permits, "permits");
  const int reasons = choose(3);
  const bool has_deadline = reasons != 0;
  const bool has_canceller = reasons != 1;
  bool child_ended = false;
  FiberBlock& child = groups.add_free("child", [&] {
    if (choose(2) == 1) check(!acquire(never), "a permit came from nowhere");
    child_ended = true;
  });
  const auto cancelled = [&](const FiberBlock& fiber) {
    return outer.is_cancelled() || fiber.claim.load().ending();
  };
  FiberBlock& maker = groups.add("maker", outer, [&] {
    FiberBlock& self = groups.self();
    Group& scope = groups.make(&outer);
    schedule.name(scope, "scope");
    scope.cover(self);
    if (has_deadline) scope.set_deadline(Groups::kDeadlineNs, 0);
    if (choose(2) == 1) {
      groups.launch(child, scope);
      const absl::Status status = scope.join();
      check(child_ended, "a scope was joined before its child had ended");
      check(status.code() != absl::StatusCode::kCancelled || cancelled(self),
            "a join reported a cancellation that was none");
    }
    scope.leave_tree();
    retire(scope, "a scope was touched after it had been left");
    const bool interrupted = !acquire(permits) || self.claim.asked(kCancel);
    check(!interrupted || cancelled(self), "a scope that was left ended a wait");
  });
  schedule.add("clock", [&] { groups.pass_time(); });
  schedule.add("giver", [&] { permits.release(); });
  if (has_canceller && choose(2) == 0) {
    schedule.add("canceller", [&] { outer.cancel(); });
  } else if (has_canceller) {
    groups.fibers().take_reference(maker);
    schedule.add("handle", [&] { groups.cancel_by_handle(maker); });
  }
  schedule.run();
}

// A level as a Timeout has one; the lock stands for that of the timers.
class Limit {
 public:
  void enter(FiberBlock& fiber) {
    level_.enter(fiber);
    armed_ = true;
  }

  void leave() {
    lock_.lock();
    armed_ = false;
    lock_.unlock();
    level_.leave();
    retire(level_, "a level was touched after it had been left");
  }

  void restart() {
    lock_.lock();
    if (!level_.was_reported()) level_.lower();
    lock_.unlock();
    refresh_cancel(*level_.fiber());
  }

  void expire() {
    sched::WakeBatch batch;
    lock_.lock();
    if (armed_ && level_.raise(Interruption::kDeadlineExceeded)) {
      batch.request(*level_.fiber(), kCancel);
    }
    lock_.unlock();
    batch.deliver();
  }

 private:
  base::SpinLock lock_;
  bool armed_ = false;  // under the lock
  sched::Level level_;
};

enum class Outer { kLimit, kScope, kGroup, kHandle };
enum class Inner { kLimit, kScope };

// Two levels of one fiber, which are raised at any time. The fiber leaves the inner one, and waits until
// it hears of the outer one. That may be its own group, or its handle: those are never left.
class Nested {
 public:
  Nested(Schedule& schedule, Outer outer, Inner inner)
      : schedule_(schedule), outer_(outer), inner_(inner), groups_(schedule, 2) {
    schedule.name(own_, "own group");
    schedule.name(outer_limit_, "outer limit");
    schedule.name(inner_limit_, "inner limit");
    schedule.name(never_, "never");
    fiber_ = &groups_.add("fiber", own_, [this] { live(); });
    if (outer == Outer::kHandle) groups_.fibers().take_reference(*fiber_);
    schedule.add("outer raiser", [this] { raise_outer(); });
    schedule.add("inner raiser", [this] {
      if (inner_ == Inner::kScope) {
        groups_.pass_time();
      } else {
        inner_limit_.expire();
      }
    });
  }

 private:
  void live() {
    enter_outer();
    inner_ == Inner::kLimit ? pass_inner_limit() : pass_inner_scope();
    check(!acquire(never_), "a permit came from nowhere");
    leave_outer();
  }

  void enter_outer() {
    if (outer_ == Outer::kLimit) outer_limit_.enter(*fiber_);
    if (outer_ == Outer::kScope) {
      outer_scope_ = &groups_.make(&own_);
      schedule_.name(*outer_scope_, "outer scope");
      outer_scope_->cover(*fiber_);
    }
    outer_entered_ = true;
  }

  void raise_outer() {
    block_until([this] { return outer_entered_; });
    switch (outer_) {
      case Outer::kLimit:
        outer_limit_.expire();
        break;
      case Outer::kScope:
        outer_scope_->cancel();
        break;
      case Outer::kGroup:
        own_.cancel();
        break;
      case Outer::kHandle:
        groups_.cancel_by_handle(*fiber_);
        break;
    }
  }

  void leave_outer() {
    if (outer_ == Outer::kGroup || outer_ == Outer::kHandle) return;
    if (outer_ == Outer::kLimit) {
      outer_limit_.leave();
    } else {
      outer_scope_->leave_tree();
      retire(*outer_scope_, "a scope was touched after it had been left");
    }
    check(!fiber_->claim.asked(kCancel), "the request of a level outlived it");
  }

  void pass_inner_limit() {
    inner_limit_.enter(*fiber_);
    if (choose(2) == 1) check(!acquire(never_), "a permit came from nowhere");
    if (choose(2) == 1) inner_limit_.restart();
    inner_limit_.leave();
  }

  void pass_inner_scope() {
    Group& scope = groups_.make(outer_scope_ != nullptr ? outer_scope_ : &own_);
    schedule_.name(scope, "inner scope");
    scope.cover(*fiber_);
    scope.set_deadline(Groups::kDeadlineNs, 0);
    if (choose(2) == 1) check(!acquire(never_), "a permit came from nowhere");
    scope.leave_tree();
    retire(scope, "a scope was touched after it had been left");
  }

  Schedule& schedule_;
  const Outer outer_;
  const Inner inner_;
  Groups groups_;
  Group& own_ = groups_.make(nullptr);
  Permits never_;
  FiberBlock* fiber_ = nullptr;
  Limit outer_limit_;
  Limit inner_limit_;
  Group* outer_scope_ = nullptr;
  bool outer_entered_ = false;
};

template <Outer outer, Inner inner>
void nested(Schedule& schedule) {
  Nested levels(schedule, outer, inner);
  schedule.run();
}

// A drain: the flag, then the groups. A fiber that was there before is asked, and need not look; one that
// comes behind it sees the flag. What is asked so is not taken back with a level.
void drain(Schedule& schedule) {
  Groups groups(schedule, 2);
  Group& above = groups.make(nullptr);
  base::Atomic<bool> draining{false};
  Permits never;
  Limit limit;
  schedule.name(above, "group above");
  schedule.name(draining, "draining");
  const auto wait = [&] { check(!never.acquire(kDrain), "a permit came from nowhere"); };
  bool limited = false;
  groups.add("first", above, [&] {
    limit.enter(groups.self());
    limited = true;
    limit.leave();
    wait();
  });
  FiberBlock& late = groups.add_free("late", [&] {
    // acquire [drain]: the group's lock orders the flag before, if the drain has passed the group.
    if (!draining.load(std::memory_order_acquire)) wait();
  });
  groups.add("parent", groups.root(), [&] {
    Group& group = groups.make(&above);
    schedule.name(group, "group");
    groups.launch(late, group);
    group.wait_until_empty();
    group.leave_tree();
    retire(group, "a drain touched a group that was left");
  });
  schedule.add("clock", [&] {
    block_until([&] { return limited; });
    limit.expire();
  });
  schedule.add("drain", [&] {
    draining.exchange(true, std::memory_order_seq_cst);
    sched::WakeBatch batch;
    above.request_all(kDrain, batch);
    batch.deliver();
  });
  schedule.run();
}

constexpr std::array kCases = {
    Case{"join", join, 100'000},
    Case{"cancel", cancel, 100'000},
    Case{"leave", leave, 100'000},
    Case{"drain", drain, 100'000},
    Case{"limit in limit", nested<Outer::kLimit, Inner::kLimit>, 50'000},
    Case{"limit in scope", nested<Outer::kScope, Inner::kLimit>, 50'000},
    Case{"limit in group", nested<Outer::kGroup, Inner::kLimit>, 50'000},
    Case{"limit in handle", nested<Outer::kHandle, Inner::kLimit>, 50'000},
    Case{"scope in limit", nested<Outer::kLimit, Inner::kScope>, 50'000},
    Case{"scope in scope", nested<Outer::kScope, Inner::kScope>, 50'000},
    Case{"scope in group", nested<Outer::kGroup, Inner::kScope>, 50'000},
};

#ifndef WEFT_PLANT

TEST_CASE("scope: a join waits for the last child, and no level's request is lost or outlives it",
          "[group][level][B6]") {
  REQUIRE(explore_cases("scope", kCases).message == "");
}

#else

TEST_CASE("scope: the planted bug is found", "[group][level]") {
  INFO("plant " << base::kPlant);
  const Result result = explore_cases("scope", kCases, 10);
  REQUIRE(result.message != "");
  REQUIRE(result.schedules < 100'000);
}

#endif

}  // namespace
}  // namespace weft::model
