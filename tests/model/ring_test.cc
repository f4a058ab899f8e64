// Cancelling operations in rings: ClaimWord, WakeBatch and operation_wait.cc as they ship, two workers
// with a ring each. No cancel is lost, none hits a later operation, no stack goes while the kernel has
// an operation on it, no block while a message about it is on its way.
#include "tests/model/ring.h"

#include <array>
#include <cerrno>
#include <cstddef>
#include <string>

#include <catch2/catch.hpp>

#include "runtime/base/plant.h"
#include "runtime/base/spin_lock.h"
#include "runtime/sched/wake_batch.h"
#include "tests/model/blocking.h"
#include "tests/model/explore.h"
#include "tests/model/fibers.h"

namespace weft::model {
namespace {

using sched::FiberBlock;
using sched::kCancel;
using sched::Operation;

using Rings = std::array<Ring, 2>;

void add_rings(Schedule& schedule, Fibers& fibers, Rings& rings) {
  static constexpr std::array kKernels = {"kernel 0", "kernel 1"};
  for (std::size_t i = 0; i < rings.size(); ++i) {
    fibers.set_driver(static_cast<int>(i), rings[i]);
    schedule.add(kKernels[i], [&fibers, &ring = rings[i]] {
      while (ring.complete_one([&fibers] { return fibers.all_ended(); })) {
      }
    });
  }
}

// One block with two lives. The first fiber waits for an operation under level 1, another under level 2,
// and ends; the second one for an operation under level 3. Whoever cancels a level may or may not come.
class TwoLives {
 public:
  TwoLives(Schedule& schedule, int levels_in_first_life)
      : first_life_(levels_in_first_life), fibers_(schedule, 2) {
    schedule.name(lock_, "levels");
    fiber_ = &fibers_.add("fiber", [this] { live(); });
    fibers_.set_freed([this](FiberBlock& block) {
      if (++lives_ != 1) return;
      fibers_.begin(block);
      fibers_.enqueue(block);
    });
    for (int level = 1; level <= first_life_ + 1; ++level) {
      will_[index(level)] = choose(2) == 1;
      schedule.add(kCancellers[index(level)], [this, level] { cancel(level); });
    }
    add_rings(schedule, fibers_, rings_);
  }

 private:
  static constexpr std::array kCancellers = {"", "canceller 1", "canceller 2", "canceller 3"};
  static constexpr int kNoLevel = 0;

  static std::size_t index(int level) { return static_cast<std::size_t>(level); }

  void live() {
    if (lives_ == 0) {
      for (int level = 1; level <= first_life_; ++level) wait_under(level);
    } else {
      wait_under(first_life_ + 1);
    }
    enter(kNoLevel);
  }

  // Leaves the level before, enters `level`, and waits there.
  void wait_under(int level) {
    enter(level);
    const bool never = will_[index(level)] && level != 1;
    Operation operation{.kind = Operation::Kind::kReceive, .length = never ? Ring::kNever : 0};
    operation.result = -ECANCELED;
    if (!fiber_->claim.asked(kCancel)) fibers_.perform(operation, kCancel);
    for (const Ring& ring : rings_) ring.check_forgotten(operation);
    check(operation.result == Ring::kSuccess || cancelled_[index(level)],
          "an operation was cancelled for an earlier level");
  }

  void enter(int level) {
    lock_.lock();
    fiber_->claim.withdraw(kCancel);
    level_ = level;
    if (level != kNoLevel) passed_ = level - 1;
    if (level == kNoLevel) ++passed_;
    lock_.unlock();
  }

  void cancel(int level) {
    if (!will_[index(level)]) return;
    block_until([&] { return level_ == level || passed_ >= level; });
    sched::WakeBatch batch;
    lock_.lock();
    if (level_ == level) {
      cancelled_[index(level)] = true;
      batch.request(*fiber_, kCancel);  // the fiber cannot leave its level, and end, meanwhile
    }
    lock_.unlock();
    batch.deliver();
  }

  const int first_life_;
  Fibers fibers_;
  Rings rings_;
  FiberBlock* fiber_ = nullptr;
  base::SpinLock lock_;  // of all levels
  int level_ = kNoLevel;
  int passed_ = 0;  // the last level that was left
  int lives_ = 0;
  std::array<bool, 4> will_{};
  std::array<bool, 4> cancelled_{};
};

void two_levels_then_reuse(Schedule& schedule) {
  TwoLives model(schedule, 2);
  schedule.run();
}

void one_level_then_reuse(Schedule& schedule) {
  TwoLives model(schedule, 1);
  schedule.run();
}

constexpr std::array kCases = {
    Case{"two levels", two_levels_then_reuse, 125'000},
    Case{"one level", one_level_then_reuse, 125'000},
};

#ifndef WEFT_PLANT

TEST_CASE("ring: an operation ends when it is cancelled, and no other one", "[claim][B6]") {
  REQUIRE(explore_cases("ring", kCases).message == "");
}

#else

TEST_CASE("ring: the planted bug is found", "[claim][B6]") {
  INFO("plant " << base::kPlant);
  const Result result = explore_cases("ring", kCases, 5);
  REQUIRE(result.message != "");
  REQUIRE(result.schedules < 100'000);
}

#endif

}  // namespace
}  // namespace weft::model
