// The end of a fiber under weak memory: ending.cc and group.cc as they ship. Who joins a fiber, or its
// group, sees what it did; who destroys the result, or frees the block, has seen everybody go who used it.
// The interleavings of a strong machine are the business of life_test.cc and scope_test.cc.
#include <weft/internal/fiber_code.h>

#include <catch2/catch.hpp>

#include "runtime/sched/block_pool.h"
#include "runtime/sched/ending.h"
#include "runtime/sched/group.h"
#include "tests/model/relacy_explore.h"
#include "tests/model/relacy_fibers.h"

namespace weft::relacy {
namespace {

using sched::FiberBlock;
using sched::Group;
using sched::WakeBatch;

// What the owner of the handle does with it.
enum class Use { kDrop, kPoll, kJoin, kJoinGroup };

// What both parties of a fiber's life have used, and who ends it.
struct Remains {
  static inline Remains* current = nullptr;

  Remains() { current = this; }

  Handed result;
  Handed block;
  int destroyed = 0;
  int freed = 0;

  static void destroy_result(void*) {
    current->result.write();
    ++current->destroyed;
  }
};

// For results that may do anything when they are destroyed, and for others.
constexpr weft::internal::FiberCode kOwned{
    8, 8, nullptr, nullptr, &Remains::destroy_result, &Remains::destroy_result};
constexpr weft::internal::FiberCode kPlain{8,       8,       nullptr,
                                           nullptr, nullptr, &Remains::destroy_result};

template <Use kUse, const weft::internal::FiberCode& kCode>
class LifeTest : public rl::test_suite<LifeTest<kUse, kCode>, 2> {
 public:
  void before() {
    fiber_.block.code = &kCode;
    fiber_.block.group = &group_;
    group_.add(fiber_.block);
  }

  void thread(unsigned index) { index == 0 ? live() : own(); }

  void after() {
    RL_ASSERT(remains_.destroyed == 1);
    RL_ASSERT(remains_.freed == 1);
    RL_ASSERT(group_.size() == 0);
  }

 private:
  void live() {
    fibers_.become(&fiber_);
    remains_.result.write();
    sched::seal(fiber_.block, sched::Ending::kReturned);
    remains_.block.read();
    fibers_.become(nullptr);
    WakeBatch batch;
    sched::finish_fiber(fiber_.block, nullptr, batch);
    batch.deliver();
  }

  void own() {
    remains_.block.read();
    if constexpr (kUse == Use::kPoll) {
      if (is_done(fiber_.block)) look();
    } else if constexpr (kUse == Use::kJoin) {
      wait_until_done(fiber_.block, 0);
      look();
    } else if constexpr (kUse == Use::kJoinGroup) {
      group_.wait_until_empty();
      RL_ASSERT(is_done(fiber_.block));
      look();
    }
    sched::drop_handle(fiber_.block);
  }

  void look() { RL_ASSERT(remains_.result.value() == 1); }

  Remains remains_;
  Fibers fibers_;
  Fiber fiber_;
  Group group_{nullptr, nullptr, {}};
};

// Two fibers of a group, and who joins it: neither touches the group afterwards, both are seen.
class GroupTest : public rl::test_suite<GroupTest, 3> {
 public:
  void before() {
    for (Fiber& fiber : fibers_of_group_) {
      fiber.block.group = &group_;
      group_.add(fiber.block);
    }
  }

  void thread(unsigned index) {
    if (index == 2) {
      group_.wait_until_empty();
      for (Handed& done : done_) RL_ASSERT(done.value() == 1);
      return;
    }
    done_[index].write();
    WakeBatch batch;
    group_.ended(fibers_of_group_[index].block, batch);
    batch.deliver();
  }

 private:
  Fibers fibers_;
  std::array<Fiber, 2> fibers_of_group_;
  std::array<Handed, 2> done_;
  Group group_{nullptr, nullptr, {}};
};

template <const weft::internal::FiberCode& kCode>
void live_and_end() {
  REQUIRE(explore_randomly<LifeTest<Use::kDrop, kCode>>(50'000));
  REQUIRE(explore_randomly<LifeTest<Use::kPoll, kCode>>(50'000));
  REQUIRE(explore_randomly<LifeTest<Use::kJoin, kCode>>(50'000));
  REQUIRE(explore_randomly<LifeTest<Use::kJoinGroup, kCode>>(50'000));
}

TEST_CASE("relacy: the last of fiber and handle ends its result and its block", "[join][B11]") {
  live_and_end<kOwned>();
  live_and_end<kPlain>();
}

TEST_CASE("relacy: who joins a group sees what its fibers did", "[join][B11]") {
  REQUIRE(explore_randomly<GroupTest>(50'000));
}

}  // namespace
}  // namespace weft::relacy

void weft::sched::BlockCache::release(FiberBlock*, BlockCache*) {
  weft::relacy::Remains::current->block.write();
  ++weft::relacy::Remains::current->freed;
}
