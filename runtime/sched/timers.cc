#include "runtime/sched/timers.h"

#include <algorithm>
#include <bit>
#include <mutex>

#include "runtime/base/plant.h"

namespace weft::sched {

void Timer::disarm() {
  if (home == nullptr) return;
  if constexpr (base::planted(46)) return;
  home->locked([this](Timers& timers) { timers.remove(*this); });
  home = nullptr;
}

void Timers::insert(Timer& timer, std::int64_t deadline_ns, std::int64_t now_ns) {
  timer.deadline_ns = deadline_ns;
  // The grain is a power of two: deadlines of similar length then meet on the same nanosecond.
  const std::int64_t length = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
  const auto slack = static_cast<std::uint64_t>(std::min(slack_ns_, length / 50));
  const auto grain = static_cast<std::int64_t>(std::bit_floor(slack));
  if (grain > 1 && deadline_ns < base::TimerWheel::kNever - grain) {
    timer.deadline_ns = (deadline_ns + grain - 1) & ~(grain - 1);
  }
  wheel_.insert(&timer);
}

void Timers::arm(Timer& timer, std::int64_t deadline_ns, std::int64_t now_ns) {
  arm_and(timer, deadline_ns, now_ns, [] { return true; });
}

void Timers::arm_outside(Timer& timer, std::int64_t deadline_ns, std::int64_t now_ns) {
  std::lock_guard hold(lock_);
  timer.home = this;
  insert(timer, deadline_ns, now_ns);
  // seq_cst [sleep]: an RMW, before the caller looks whether the worker sleeps.
  earliest_.exchange(wheel_.earliest(), std::memory_order_seq_cst);
}

void Timers::fire_due(std::int64_t now_ns, WakeBatch& batch, unsigned most) {
  if (earliest() > now_ns) return;
  std::lock_guard hold(lock_);
  for (; most > 0; --most) {
    base::TimerNode* due = wheel_.pop_due(now_ns);
    if (due == nullptr) break;
    auto& timer = static_cast<Timer&>(*due);
    if constexpr (base::planted(33)) lock_.unlock();
    timer.fire(timer, now_ns, batch);
    if constexpr (base::planted(33)) lock_.lock();
    if constexpr (base::planted(44)) timer.fire(timer, now_ns, batch);
  }
  if constexpr (!base::planted(34)) publish();
}

}  // namespace weft::sched
