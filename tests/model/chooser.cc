#include "tests/model/chooser.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "tests/model/atomic.h"

namespace weft::model {
namespace {

constexpr int kSpuriousFailureOneIn = 16;

int nth_bit(std::uint32_t bits, int n) {
  for (; n > 0; --n) bits &= bits - 1;
  return std::countr_zero(bits);
}

bool contains(std::uint32_t bits, int thread) { return thread >= 0 && (bits >> thread & 1) != 0; }

// Those that do not spin; if all do, each may look again.
std::uint32_t without_spinning(std::uint32_t runnable) {
  const std::uint32_t eligible = runnable & ~hooks.spinning;
  if (eligible != 0) return eligible;
  hooks.spinning = 0;
  return runnable;
}

}  // namespace

void Chooser::begin_schedule(std::uint64_t index) {
  random_state_ = options_.seed * 0x9e3779b97f4a7c15 + index;
  random_state_ = next_random();  // neighbours' streams would overlap otherwise
  contended_steps_ = 0;
  depth_ = 0;
  preemptions_ = 0;
  hooks.spinning = 0;
}

void Chooser::begin_threads(int count) {
  if (options_.strategy != Strategy::kPct) return;
  for (int i = 0; i < count; ++i) priority_[i] = i + 1;
  for (int i = count - 1; i > 0; --i) std::swap(priority_[i], priority_[random_below(i + 1)]);
  lowest_ = 0;
  changes_ = options_.depth - 1;
  next_change_ = 0;
  for (int i = 0; i < changes_; ++i) {
    change_at_[i] = 1 + static_cast<std::uint32_t>(random_below(static_cast<int>(measured_steps_)));
  }
  std::sort(change_at_.begin(), change_at_.begin() + changes_);
}

int Chooser::choose(int current, std::uint32_t runnable) {
  if ((runnable & (runnable - 1)) == 0) return std::countr_zero(runnable);
  switch (options_.strategy) {
    case Strategy::kRandom:
      return choose_random(current, without_spinning(runnable));
    case Strategy::kPct:
      return choose_by_priority(current, runnable);
    case Strategy::kBounded:
      return choose_bounded(current, without_spinning(runnable));
  }
  __builtin_unreachable();
}

int Chooser::choose_number(int count) {
  return options_.strategy == Strategy::kBounded ? decide(count) : random_below(count);
}

void Chooser::spin(int thread) {
  hooks.spinning |= std::uint32_t{1} << thread;
  priority_[thread] = lowest_--;
}

bool Chooser::fails_spuriously() {
  return options_.strategy != Strategy::kBounded && random_below(kSpuriousFailureOneIn) == 0;
}

bool Chooser::end_schedule(std::uint64_t index) {
  if (index < kMeasured) measured_steps_ = std::max(measured_steps_, contended_steps_);
  if (options_.strategy != Strategy::kBounded) return true;
  while (!path_.empty() && path_.back().chosen + 1 == path_.back().count) path_.pop_back();
  if (path_.empty()) return false;
  ++path_.back().chosen;
  return true;
}

int Chooser::choose_random(int current, std::uint32_t runnable) {
  if (contains(runnable, current) && (next_random() & 1) != 0) return current;
  return nth_bit(runnable, random_below(std::popcount(runnable)));
}

int Chooser::choose_by_priority(int current, std::uint32_t runnable) {
  ++contended_steps_;
  while (next_change_ < changes_ && change_at_[next_change_] <= contended_steps_) {
    ++next_change_;
    if (current >= 0) priority_[current] = lowest_--;
  }
  int highest = std::countr_zero(runnable);
  for (std::uint32_t rest = runnable & (runnable - 1); rest != 0; rest &= rest - 1) {
    const int thread = std::countr_zero(rest);
    if (priority_[thread] > priority_[highest]) highest = thread;
  }
  return highest;
}

int Chooser::choose_bounded(int current, std::uint32_t runnable) {
  if (!contains(runnable, current)) return nth_bit(runnable, decide(std::popcount(runnable)));
  if (preemptions_ == options_.depth) return current;
  // Staying comes first, so that the search begins with the schedule that preempts nobody.
  const std::uint32_t others = runnable & ~(std::uint32_t{1} << current);
  const int decision = decide(1 + std::popcount(others));
  if (decision == 0) return current;
  ++preemptions_;
  return nth_bit(others, decision - 1);
}

int Chooser::decide(int count) {
  if (count == 1) return 0;
  if (depth_ == path_.size()) path_.push_back({0, count});
  return path_[depth_++].chosen;
}

std::uint64_t Chooser::next_random() {  // splitmix64
  std::uint64_t z = random_state_ += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

int Chooser::random_below(int count) {
  return static_cast<int>((next_random() >> 32) * static_cast<std::uint64_t>(count) >> 32);
}

}  // namespace weft::model
