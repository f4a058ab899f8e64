// Who runs next: the strategies by which schedules are drawn.
//
//   chooser.begin_schedule(index);
//   chooser.begin_threads(3);
//   const int next = chooser.choose(current, runnable);   // at every operation of every thread
//   ...
//   more = chooser.end_schedule();
//
// Random: a walk that stays with the running thread half of the time. PCT (Burckhardt and others,
// 2010): threads have random priorities, the highest that can runs, and at depth - 1 random moments
// the running thread drops below all others; a bug that needs `depth` ordered events among n
// threads and k steps is found with a probability of at least 1 / (n * k^(depth - 1)) in each
// schedule. Bounded: every schedule that preempts a thread at most `depth` times, one after the
// other, until there are no more.
//
// Promises: a schedule depends only on the options, its index, and what the threads did in it; and
// for PCT on the length of the first kMeasured schedules.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "tests/model/explore.h"

namespace weft::model {

class Chooser {
 public:
  // PCT takes the longest of so many schedules for the length of all.
  static constexpr std::uint64_t kMeasured = 64;

  explicit Chooser(const Options& options) : options_(options) {}

  void begin_schedule(std::uint64_t index);
  void begin_threads(int count);

  // The thread to run, out of the bit set `runnable`, which is not empty. `current` is the one that
  // asks, or -1.
  int choose(int current, std::uint32_t runnable);

  // A number below `count` that is part of the schedule.
  int choose_number(int count);

  // `thread` waits for the others.
  void spin(int thread);

  bool fails_spuriously();

  // Must be called for a schedule that ended well, and not for one that failed: that one can then
  // be begun again. Returns whether there are schedules left.
  bool end_schedule(std::uint64_t index);

 private:
  struct Decision {
    int chosen;
    int count;
  };

  int choose_random(int current, std::uint32_t runnable);
  int choose_by_priority(int current, std::uint32_t runnable);
  int choose_bounded(int current, std::uint32_t runnable);
  int decide(int count);
  std::uint64_t next_random();
  int random_below(int count);

  const Options options_;
  std::uint64_t random_state_ = 0;

  // PCT. Priorities start above zero; who drops gets the next number below it.
  std::array<int, kThreadsMax> priority_{};
  std::array<std::uint32_t, kDepthMax> change_at_{};
  int changes_ = 0;
  int next_change_ = 0;
  int lowest_ = 0;
  std::uint32_t contended_steps_ = 0;  // a step with nobody else to run is no place for a change
  std::uint32_t measured_steps_ = 1;

  // Bounded: the path through the tree of decisions, of which the next schedule changes the last.
  std::vector<Decision> path_;
  std::size_t depth_ = 0;
  int preemptions_ = 0;
};

}  // namespace weft::model
