// Workers whose queues are counters, and their runtime: what Idle is played over.
//
//   Runtime runtime(schedule, {"2 workers", 2, 1, false, {"ii", ""}, "???"});
//   schedule.run();                          // until the runtime has been stopped
//
// A worker does what Worker does between a look for work and a sleep, and asks Idle in the same places; a
// fiber is one that is counted, and does the next thing in the script. The runtime brings the threads around
// the workers: producers, a clock, and one that stops it.
//
// Promises: a schedule fails when at rest work is left while a worker sleeps, or what Idle counts is wrong.
#pragma once

#include <array>
#include <cstddef>
#include <string_view>

#include "runtime/base/atomic.h"
#include "runtime/sched/idle.h"
#include "tests/model/explore.h"

namespace weft::model {

using Count = base::Atomic<int>;

inline constexpr auto kSeqCst = std::memory_order_seq_cst;
inline constexpr auto kRelaxed = std::memory_order_relaxed;

struct Limits {
  const char* name;
  int workers;
  int stuck_max;    // how many fibers may run for ever
  bool early_stop;  // the runtime is stopped at any time, not at rest
  // What threads outside do: i inject a fiber, 0 or 1 send one to that worker, n a note that is no fiber
  // to worker 1.
  std::array<std::string_view, 2> producers;
  // What fibers do, in the order in which they run: s spawn, w wake one, t arm a timer, . end, ! run for
  // ever; ? is any of them. Then they end.
  std::string_view script;
};

class Runtime;

// What Worker is to Idle.
class ModelWorker {
 public:
  void start(Runtime& runtime, int index);
  void main();

  // ---- The host of Idle
  bool stopping() const;
  bool collect();
  bool steal(int victim);
  bool share_left() const;
  bool quiet_work() const { return !queues_empty(); }
  bool anything() const;
  bool has_timers() const { return timers_.load(kRelaxed) != 0 || due_.load(kRelaxed) != 0; }
  bool spin() { return false; }
  void sleep(bool timed);
  bool rescue();
  void ring(int worker);

  // ---- For the others
  Count inbox{0};  // fibers that must run here
  Count notes{0};  // messages about fibers

  bool queues_empty() const {
    return next_slot_.load(kRelaxed) == 0 && ready_.load(kRelaxed) == 0 &&
           unstarted_.load(kRelaxed) == 0;
  }
  bool stranded() const { return !queues_empty() || due_.load(kRelaxed) != 0; }
  // What is asleep and how, for the check at rest.
  bool asleep() const { return asleep_; }
  bool timed() const { return asleep_ && timed_; }
  bool stuck() const { return stuck_; }
  // Call from: the clock.
  bool armed() const { return timers_.load(kRelaxed) != 0; }
  void pass_time() {
    if (!armed()) return;
    due_.fetch_add(1, kSeqCst);
    timers_.fetch_sub(1, kSeqCst);
  }

 private:
  static constexpr int kReadyWorthARing = 3;
  static constexpr int kFibersPerTurn = 1;

  bool take_local();
  void run();
  void take_in();
  void make_ready();
  void spawn();
  void arm();

  Runtime* runtime_ = nullptr;
  int index_ = 0;
  bool asleep_ = false;
  bool timed_ = false;
  bool stuck_ = false;
  Count next_slot_{0};
  Count ready_{0};
  Count unstarted_{0};
  Count timers_{0};  // armed, and not due
  Count due_{0};
  Count doorbell_{0};
};

class Runtime {
 public:
  Runtime(Schedule& schedule, const Limits& limits);

  sched::Idle& idle() { return idle_; }
  ModelWorker& worker(int index) { return workers_[static_cast<std::size_t>(index)]; }
  int worker_count() const { return limits_.workers; }
  const Limits& limits() const { return limits_; }
  char next_action() { return acted_ < limits_.script.size() ? limits_.script[acted_++] : '.'; }

  Count injection{0};
  base::Atomic<bool> stopping{false};
  int stuck = 0;
  int stopped = 0;

 private:
  void produce(std::string_view actions);
  void pass_time();
  void look_at_rest();
  void stop();

  const Limits limits_;
  std::size_t acted_ = 0;
  sched::Idle idle_;
  std::array<ModelWorker, 3> workers_;
};

}  // namespace weft::model
