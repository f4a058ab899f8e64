// Chaos: a build in which every entry into the scheduler may do what a busy machine only seldom does.
//
//   if (chaos_.strikes()) ...                     // one time in eight; never without WEFT_CHAOS
//   steal(chaos_.below(workers));
//
// A worker then yields at cancellation points and after each wait, leaves what became ready to whoever
// comes first, takes its queues in another order, robs others while it has work, ends its turn early, and
// lets other kernel threads go first between the steps of going to sleep. All of that is allowed at any
// time, so everything that does not count turns must hold all the same.
//
// The numbers come from WEFT_SEED, or from a seed that is printed. The same seed gives each worker the same
// numbers; what it does with them depends on the kernel's schedule all the same.
#pragma once

#ifdef WEFT_CHAOS
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>

#include <sched.h>
#endif

namespace weft::sched {

#ifdef WEFT_CHAOS

inline constexpr bool kChaos = true;

// Of this process; printed once. Call from: any thread.
inline std::uint64_t chaos_seed() {
  static const std::uint64_t chosen = [] {
    const char* given = std::getenv("WEFT_SEED");
    const std::uint64_t value =
        given != nullptr ? std::strtoull(given, nullptr, 0) : std::random_device{}();
    std::fprintf(stderr, "chaos: WEFT_SEED=%llu\n", static_cast<unsigned long long>(value));
    return value;
  }();
  return chosen;
}

// Call from: the worker that owns it, or the fiber that it runs.
class Chaos {
 public:
  explicit Chaos(int worker) : state_(chaos_seed() * 1024 + static_cast<std::uint64_t>(worker)) {}

  bool strikes() { return below(8) == 0; }

  int below(int limit) {
    state_ += 0x9e3779b97f4a7c15;  // splitmix64
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return static_cast<int>((z ^ (z >> 31)) % static_cast<std::uint64_t>(limit));
  }

  // Lets other kernel threads go first.
  void stall() {
    if (strikes()) sched_yield();
  }

 private:
  std::uint64_t state_;
};

#else

inline constexpr bool kChaos = false;

class Chaos {
 public:
  explicit Chaos(int) {}
  static constexpr bool strikes() { return false; }
  static constexpr int below(int) { return 0; }
  static constexpr void stall() {}
};

#endif

}  // namespace weft::sched
