// The end of a fiber: ending.cc and group.cc as they ship, two model workers. Fiber and handle part in any
// order, the handle joined or not; the result is destroyed once, the block is freed once, after both, and
// whoever has joined the group finds the fiber done.
#include <weft/internal/fiber_code.h>

#include <array>
#include <cstddef>
#include <string>

#include <catch2/catch.hpp>

#include "runtime/base/plant.h"
#include "runtime/sched/block_pool.h"
#include "runtime/sched/ending.h"
#include "runtime/sched/group.h"
#include "tests/model/blocking.h"
#include "tests/model/explore.h"
#include "tests/model/fibers.h"
#include "tests/model/groups.h"

namespace weft::model {
namespace {

using sched::FiberBlock;
using sched::Group;
using sched::kCancel;

// What the owner of the handle does with it.
enum class Use { kDrop, kJoin, kJoinGroup };

class Life {
 public:
  Life(Schedule& schedule, bool plain_result, Use use)
      : groups_(schedule, 2), code_(plain_result ? kPlain : kOwned), use_(use) {
    current_ = this;
    schedule.name(group_, "group");
    FiberBlock& fiber =
        groups_.add("fiber", group_, [this] { seal(*fiber_, sched::Ending::kReturned); });
    fiber_ = &fiber;
    fiber.code = &code_;
    fiber.traits = {};
    fiber.join.unlock(0);
    schedule.name(fiber.join, "join word");
    groups_.fibers().set_exit([](FiberBlock& block, sched::WakeBatch& batch) {
      if (&block == current_->fiber_) return finish_fiber(block, nullptr, batch);
      block.group->ended(block, batch);
      groups().fibers().drop_reference(block);
    });
    groups_.fibers().set_freed([this](FiberBlock& block) {
      if (&block != fiber_) return;
      check(group_.size() == 0, "a block was freed while its group counts the fiber");
      check(destroyed_ == 1, "a block was freed before its result was destroyed");
    });
    if (choose(2) == 0) {
      groups_.add("owner", groups_.root(), [this] { own(); });
    } else {
      schedule.add("owner", [this] { own(); });
    }
  }

  static void release(FiberBlock& block) { groups().fibers().give_back(block); }
  bool destroyed() const { return destroyed_ == 1; }

 private:
  static Groups& groups() { return current_->groups_; }
  static void destroy(void*) { check(++current_->destroyed_ == 1, "a result was destroyed twice"); }
  // For results that may do anything when they are destroyed, and for others.
  static constexpr weft::internal::FiberCode kOwned{8, 8, nullptr, nullptr, &destroy, &destroy};
  static constexpr weft::internal::FiberCode kPlain{8, 8, nullptr, nullptr, nullptr, &destroy};

  void own() {
    switch (use_) {
      case Use::kDrop:
        break;
      case Use::kJoin:
        check(wait_until_done(*fiber_, 0), "a wait that nothing interrupts was interrupted");
        check(is_done(*fiber_), "a joiner was woken before the fiber was done");
        break;
      case Use::kJoinGroup:
        group_.wait_until_empty();
        check(is_done(*fiber_), "the group is empty, and its fiber not done");
        break;
    }
    drop_handle(*fiber_);
  }

  inline static Life* current_ = nullptr;

  Groups groups_;
  const weft::internal::FiberCode& code_;
  const Use use_;
  Group& group_ = groups_.make(nullptr);
  FiberBlock* fiber_ = nullptr;
  int destroyed_ = 0;
};

template <Use use>
void live(Schedule& schedule) {
  Life life(schedule, choose(2) == 0, use);
  schedule.run();
  check(life.destroyed(), "a result was never destroyed");
}

constexpr std::array kCases = {
    Case{"join the group", live<Use::kJoinGroup>, 200'000},
    Case{"join", live<Use::kJoin>, 200'000},
    Case{"drop", live<Use::kDrop>, 200'000},
};

#ifndef WEFT_PLANT

TEST_CASE("life: fiber and handle part in any order", "[life]") {
  REQUIRE(explore_cases("life", kCases).message == "");
}

#else

TEST_CASE("life: the planted bug is found", "[life]") {
  INFO("plant " << base::kPlant);
  const Result result = explore_cases("life", kCases, 7);
  REQUIRE(result.message != "");
  REQUIRE(result.schedules < 100'000);
}

#endif

}  // namespace
}  // namespace weft::model

void weft::sched::BlockCache::release(FiberBlock* block, BlockCache*) {
  weft::model::Life::release(*block);
}
