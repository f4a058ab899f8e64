// TimeoutLevel: the level behind a public Timeout: a deadline that can be moved at the price of one
// atomic operation.
//
//   TimeoutLevel level(fiber, deadline_ns);
//   level.restart(later_ns);                 // the timer stays where it is and finds out when it fires
//
// The wanted deadline and the fact that it was missed are one word, so that restarting and expiring have
// an order: whichever changes the word first happened first. [restart]
#pragma once

#include <cstdint>

#include "runtime/sched/level.h"
#include "runtime/sched/timers.h"

namespace weft::sched {

class TimeoutLevel : private Timer {
 public:
  TimeoutLevel(FiberBlock& fiber, std::int64_t until_ns);
  ~TimeoutLevel();

  void restart(std::int64_t until_ns);
  bool expired() const { return level_.raised() != Interruption::kNone; }

 private:
  static constexpr std::uint64_t kExpired = std::uint64_t{1} << 63;  // no deadline is negative

  static void on_fire(Timer& timer, std::int64_t now_ns, WakeBatch& batch);
  void arm(std::int64_t until_ns);

  Level level_;
  std::int64_t armed_ns_;  // the fiber's: the timer fires no later than this
  // [restart] Under the timers' lock to expire; without it to move to later.
  base::Atomic<std::uint64_t> wanted_;
};

}  // namespace weft::sched
