// Group: the fibers of one FiberGroup or Scope, their first error, and their cancellation.
//
//   Group group(&runtime_or_outer_group, options);
//   group.add(fiber);                                 // spawn
//   group.record(fiber, status, exception);           // a child ended badly, on its own stack
//   group.ended(fiber, batch);                        // its exit's commit step: the last touch
//   absl::Status status = group.join();
//
// A group is a node of a tree: the scopes made under it are its subgroups, and cancelling it cancels
// them. Everything below is guarded by the lock in `word_`; an unlock is the last touch of the group by
// a child, after which a joiner may destroy it. Locks are taken from a group to its subgroups, never the
// other way. [group]
//
// Requires: a group outlives its fibers: the public types wait in their destructors.
// Promises: join returns when all have ended, never before. The first error wins; the others are
// attached to it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>

#include <absl/status/status.h>

#include "runtime/base/intrusive_list.h"
#include "runtime/sched/fiber.h"
#include "runtime/sched/level.h"
#include "runtime/sched/timers.h"
#include "runtime/sched/wake_batch.h"

namespace weft::sched {

class Core;

// The exception of a fiber, shared by its block and its group: whoever joins first takes it.
struct ChildException {
  std::exception_ptr pointer;
  std::atomic<bool> taken{false};
};

class Group {
 public:
  struct Options {
    const char* name = "";
    bool keep_going = false;  // a child's error cancels nobody
    bool log_errors = false;  // an error is logged at once: nobody may ever join
  };

  // `parent` is the group whose cancellation reaches this one: an outer scope, or the runtime's own.
  // A null `core` makes a group whose fibers end unrun.
  Group(Core* core, Group* parent, const Options& options);
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  // Requires: no fiber is left. Leaves the tree if leave_tree() has not done so.
  ~Group();

  // Takes the group out of its parent and its fiber's levels: nobody cancels it from here on.
  // Requires: no fiber is left. Call from: the maker of a scope; any thread for other groups.
  void leave_tree();
  // What nobody has joined for. An exception is returned, for the destructor of the public type to end the
  // process with; while the stack unwinds it is logged instead. An error is logged.
  std::exception_ptr take_unseen_exception();

  // Makes this a Scope: cancellation also covers the waits of the calling fiber.
  void cover(FiberBlock& maker);
  // A deadline for all fibers and covered waits. Call from: any thread.
  void set_deadline(std::int64_t deadline_ns, std::int64_t now_ns);

  // Takes a fiber in; a cancelled group asks it at once to end. Call from: any thread. Never parks.
  void add(FiberBlock& fiber) {
    const std::uint64_t state = word_.lock();
    ++count_;
    fibers_.push_back(&fiber);
    // A late child hears at once what the others have heard. It has not started: the request is noted.
    if (__builtin_expect(is_cancelled(), 0)) fiber.claim.request(kCancel);
    word_.unlock(state);
  }

  // Notes that a child ended with an error or an exception, and cancels the others if that is the rule.
  // Call from: the child, on its own stack, before ended().
  void record(FiberBlock& fiber, const absl::Status* error,
              std::shared_ptr<ChildException> exception) noexcept;

  // Notes that a child could not even be made. Call from: spawn.
  void record_unmade(const absl::Status& error) noexcept;

  // Lets a child go. The last touch by it. Call from: the commit step of its exit.
  void ended(FiberBlock& fiber, WakeBatch& batch) {
    std::uint64_t state = word_.lock();
    fibers_.remove(&fiber);
    if (--count_ == 0) {
      batch.add_all(WaitList(ObjectWord::waiters(state)));
      state = ObjectWord::with_waiters(state, nullptr);
    }
    // [group] the last touch: a joiner that was claimed may destroy the group now
    word_.unlock(state);
  }

  // Asks everything in and below the group to end. Call from: any thread. Never parks.
  void cancel(Interruption why = Interruption::kCancelled);
  void cancel(Interruption why, WakeBatch& batch);

  // Asks something of every fiber in and below the group that is not its end. Call from: any thread.
  void request_all(Request what, WakeBatch& batch);

  // Waits until no fiber is left. Returns the first error, rethrows the first exception. From outside a
  // scope's own levels an interruption cancels the children of a Scope and is reported when they have
  // ended; for other groups it ends the wait alone.
  // Call from: any thread. Parks.
  absl::Status join();
  // Waits until no fiber is left, whatever is asked meanwhile. Call from: any thread. Parks.
  void wait_until_empty();

  // The runtime ends: what is below it belongs to none from now on. Requires: no fiber is left there.
  void orphan_subgroups();

  bool is_cancelled() const { return cover_.raised() != Interruption::kNone; }
  std::size_t size();
  Core* core() const { return core_; }
  const Level& cover() const { return cover_; }

  base::ListNode<Group> tree_node;  // in the parent's list, under the parent's lock

 private:
  struct Errors;

  // Calls visit(group) for this group and all below it, each under its own lock and the locks of those above
  // it. What visit() answers is whether to go on below.
  template <class Visit>
  void walk_down(Visit visit);
  void keep(absl::Status error, std::shared_ptr<ChildException> exception);
  void attach(Group& subgroup);
  void detach(Group& subgroup);
  bool wait_empty(unsigned accepts);
  absl::Status report();
  static void on_deadline(Timer& timer, std::int64_t now_ns, WakeBatch& batch);

  Core* core_;
  Group* parent_;
  const Options options_;

  ObjectWord word_;  // its pointer: who waits in join
  std::size_t count_ = 0;
  base::IntrusiveList<FiberBlock, &FiberBlock::group_node> fibers_;
  base::IntrusiveList<Group, &Group::tree_node> subgroups_;
  // How walk_down() gets back from here: a tree may be deeper than the walker's stack.
  struct WayBack {
    Group* up;
    std::uint64_t state;  // what unlocks this group
  } way_back_;
  FiberBlock* maker_ = nullptr;  // the covered fiber; null again when the scope is being left

  Level cover_;  // raised when the group is cancelled; entered by cover() only

  struct Deadline : Timer {
    explicit Deadline(Group& of) : Timer(&Group::on_deadline), group(of) {}
    Group& group;
  };
  Deadline deadline_{*this};
  std::unique_ptr<Errors> errors_;
  // Something ended with an error or an exception, and there was no memory for errors_.
  absl::StatusCode unkept_ = absl::StatusCode::kOk;
};

}  // namespace weft::sched
