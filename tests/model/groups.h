// Groups under the controlled scheduler: group.cc, level.cc and timers.cc as they ship, over fibers.h.
//
//   model::Groups groups(schedule, 2);                        // two workers
//   sched::Group& group = groups.make(nullptr);               // no parent
//   groups.add("child", group, [] { ... });                   // spawned before the schedule begins
//   sched::FiberBlock& late = groups.add_free("late", [] { ... });
//   groups.add("parent", groups.root(), [&] { groups.launch(late, group); group.join(); });
//   schedule.run();
//
// This file stands for what groups call in Core. Deadlines are armed in the timers of nobody's worker; they
// are due at once, and a thread of the model fires them (pass_time) whenever it likes.
//
// Requires: one object for each schedule, made before the other threads are added.
// Promises: groups lie outside of all stacks, and stay, retired or not, until the schedule has ended. They
// are destroyed then, but not those of a schedule that failed: fibers may be left in them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>

#include "runtime/sched/group.h"
#include "runtime/sched/timers.h"
#include "tests/model/explore.h"
#include "tests/model/fibers.h"

namespace weft::model {

class Groups {
 public:
  static constexpr std::int64_t kDeadlineNs = 1;

  Groups(Schedule& schedule, int workers);
  ~Groups();
  Groups(const Groups&) = delete;
  Groups& operator=(const Groups&) = delete;

  // Call from: any thread.
  sched::Group& make(sched::Group* parent, const sched::Group::Options& options = {});
  // The group of fibers that no other group of the model is about.
  sched::Group& root() { return root_; }

  // As Fibers::add() and add_free(). Call from: the body.
  sched::FiberBlock& add(const char* name, sched::Group& group, std::function<void()> function);
  sched::FiberBlock& add_free(const char* name, std::function<void()> function) {
    return fibers_.add_free(name, std::move(function));
  }
  // As launch_fiber(). Call from: a fiber.
  void launch(sched::FiberBlock& block, sched::Group& group);

  // What a handle asks; it is dropped then. Call from: any thread that has taken a reference.
  void cancel_by_handle(sched::FiberBlock& block);

  // Waits until a deadline is set, and lets it pass; returns when all fibers have ended, too.
  // Call from: a thread of the model.
  void pass_time();

  // The calling fiber.
  sched::FiberBlock& self() const { return *fibers_.running(); }
  Fibers& fibers() { return fibers_; }
  sched::Timers& timers() { return timers_; }
  static Groups& current();

 private:
  struct Place {
    alignas(sched::Group) std::byte bytes[sizeof(sched::Group)];
  };
  static sched::Group& in(Place& place);

  std::deque<Place> places_;
  sched::Timers timers_{0};
  Fibers fibers_;
  sched::Group& root_;
};

}  // namespace weft::model
