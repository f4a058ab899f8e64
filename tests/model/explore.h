// The controlled scheduler: runs a small program under many interleavings, shows one that fails.
//
//   TEST_CASE("counter: two increments are both counted", "[counter]") {
//     model::Result result = model::explore({.name = "counter"}, [](model::Schedule& schedule) {
//       base::Atomic<int> counter{0};                        // fresh for each schedule
//       for (const char* name : {"first", "second"}) {
//         schedule.add(name, [&] { counter.fetch_add(1, std::memory_order_relaxed); });
//       }
//       schedule.run();                                      // every operation may switch threads
//       model::check(counter.load(std::memory_order_relaxed) == 2, "an increment was lost");
//     });
//     REQUIRE(result.message == "");
//   }
//
// Requires: one kernel thread; the body depends on nothing but the schedule (no clock, no
// addresses, no state of its own from one call to the next); model threads do not throw, and do not
// switch in a catch.
// Promises: a failure is a failed check, WEFT_CHECK or WEFT_DCHECK, a deadlock, or too many steps.
// It stops the exploration, is run again with a trace, and prints both with the line that replays
// it. Objects of threads that did not end in a failed schedule are not destroyed.
//
// Environment: WEFT_SEED replaces the seed, WEFT_SOAK takes 20 times the schedules, WEFT_SCHEDULES sets
// the number of those of the random strategies, and WEFT_REPLAY=NAME:INDEX runs that one schedule of
// that exploration only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace weft::model {

inline constexpr int kThreadsMax = 16;
inline constexpr int kDepthMax = 16;

enum class Strategy : std::uint8_t {
  kRandom,   // walks that stay with the running thread half of the time
  kPct,      // priorities with depth - 1 changes
  kBounded,  // all schedules with at most `depth` preemptions
};

struct Options {
  std::string name;  // unique in its program; WEFT_REPLAY selects by it
  Strategy strategy = Strategy::kRandom;
  int depth = 3;
  std::uint64_t schedules = 100'000;
  std::uint64_t seed = 1;          // constant, so that a test run does not depend on luck
  std::uint32_t max_steps = 5000;  // more is taken for a livelock
};

struct Result {
  std::string message;          // what failed; empty when nothing did
  std::string trace;            // the last operations of the schedule that failed
  std::string replay;           // the command that runs it again
  std::uint64_t schedule = 0;   // its index
  std::uint64_t schedules = 0;  // that were run, the failed one included
  std::uint64_t steps = 0;      // in all of them
  bool complete = false;        // kBounded: there are no other schedules
};

// One interleaving: what the body puts its threads into.
class Schedule {
 public:
  // A thread to run; `name` is for the trace and must outlive the schedule.
  void add(const char* name, std::function<void()> function);

  // Runs the threads that were added until all have ended. Does not return from a failure.
  void run();

  // Lets the trace call the bytes of `object` `name`, name+8 and so on.
  template <class T>
  void name(const T& object, const char* name) {
    name_bytes(&object, sizeof object, name);
  }
  void name_bytes(const void* address, std::size_t size_bytes, const char* name);
};

// Runs `body` once for each schedule.
Result explore(const Options& options, const std::function<void(Schedule&)>& body);

// Explores `body` by all strategies: random walks, PCT of depth 1, 2 and 3, `schedules` in all, and
// then all schedules with two preemptions, but not more than `schedules` of them. Returns the
// exploration that failed, or the last; its number of schedules is that of all of them.
Result explore_all(const std::string& name, std::uint64_t schedules,
                   const std::function<void(Schedule&)>& body);

// A program's models, one after another, each explored by all strategies with its schedules divided by
// `part`. Returns the exploration that failed, or the last; its number of schedules is that of all models.
struct Case {
  const char* name;
  void (*play)(Schedule&);
  std::uint64_t schedules;
};
Result explore_cases(const std::string& program, std::span<const Case> cases,
                     std::uint64_t part = 1);

// Fails the schedule when `condition` is false.
// Call from: a model thread, or the body.
void check(bool condition, const char* message);

// A number in [0, count) that is a part of the schedule: "it may happen that".
// Call from: a model thread, or the body.
int choose(int count);

// Which of the schedule's threads calls, by the order in which they were added.
// Call from: a model thread.
int current_thread();

// From now on each operation on an atomic inside of `object`, or a wait on it, fails the schedule:
// its owner may destroy it here. The storage must stay, unused, until the schedule ends.
void retire_bytes(const void* address, std::size_t size_bytes, const char* message);
template <class T>
void retire(const T& object, const char* message) {
  retire_bytes(&object, sizeof object, message);
}

}  // namespace weft::model
