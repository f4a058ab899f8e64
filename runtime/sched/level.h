// Level: one nested reason why a fiber's waits may end early: a Scope, or a Timeout.
//
//   Level& level = ...;                      // on the fiber's stack, innermost first
//   Interruption why = interruption(fiber);  // which level is raised, if any
//
// A fiber's claim word has one cancel bit, but levels nest. So each level keeps a flag of its own; who
// cancels sets the flag and then the bit, under the level's lock. Who leaves a level marks it left under
// that lock, takes the bit back, and then looks at the outer levels once more, because one of them may
// have been raised meanwhile. [level]
//
// Requires: levels are left in the reverse order in which they were entered, by their own fiber.
// Promises: a raised outer level is never forgotten, an inner one never reported outside it.
#pragma once

#include <cstdint>

#include "runtime/base/atomic.h"
#include "runtime/sched/fiber.h"

namespace weft::sched {

// Why a wait ends early. The public API makes the two statuses without a text from it.
enum class Interruption : std::uint8_t { kNone, kCancelled, kDeadlineExceeded };

class Level {
 public:
  Level() = default;
  Level(const Level&) = delete;
  Level& operator=(const Level&) = delete;

  // Makes this the innermost level of `fiber`; `group` if it is the cover of a Scope.
  // Call from: that fiber.
  void enter(FiberBlock& fiber, Group* group = nullptr) {
    fiber_ = &fiber;
    group_ = group;
    outer_ = fiber.frame->level;
    fiber.frame->level = this;
  }

  // Makes the outer level the innermost again. The caller has seen to it that nobody raises this one
  // any more (under its lock). Call from: the fiber.
  void leave();

  // Sets the flag; only the first reason stays. Returns whether it was the first.
  // Call from: under the level's lock.
  bool raise(Interruption why) {
    std::uint32_t none = 0;
    // release [level]: before the cancel bit; pairs with raised().
    return raised_.compare_exchange_strong(none, static_cast<std::uint32_t>(why),
                                           std::memory_order_acq_rel, std::memory_order_relaxed);
  }
  Interruption raised() const {
    return static_cast<Interruption>(
        raised_.load(std::memory_order_acquire));  // [level] see raise()
  }
  // Takes the flag back (a Timeout that is restarted). Call from: under the level's lock.
  void lower() { raised_.store(0, std::memory_order_relaxed); }  // relaxed: the lock orders it

  // Whether a wait has reported this level as its reason: then it stays raised.
  bool was_reported() const { return reported_; }
  void note_reported() { reported_ = true; }

  Level* outer() const { return outer_; }
  FiberBlock* fiber() const { return fiber_; }
  Group* group() const { return group_; }

 private:
  Level* outer_ = nullptr;
  FiberBlock* fiber_ = nullptr;
  Group* group_ = nullptr;
  bool reported_ = false;  // the fiber's own
  base::Atomic<std::uint32_t> raised_{0};
};

// The innermost raised level of the calling fiber, its group's included. Call from: the fiber.
Interruption interruption(const FiberBlock& fiber);

// The same for a wait that reports it: a Timeout that was reported stays expired.
Interruption report_interruption(const FiberBlock& fiber);
// The same, but only from `innermost` outwards. Call from: the fiber whose levels they are.
Interruption report_interruption_from(Level* innermost, const FiberBlock& fiber);

// Takes the fiber's cancel bit back and asks again if a level that is left still wants it.
// Call from: the fiber, after a level was left or lowered.
void refresh_cancel(FiberBlock& fiber);

}  // namespace weft::sched
