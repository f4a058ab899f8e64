// Random numbers for tests, from a seed that every run prints and WEFT_SEED replaces.
//
//   test::Random random(test::seed());
//   const auto steps = random.below(100);
//
// Promises: the same seed gives the same numbers with every compiler and library.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "runtime/sched/chaos.h"

namespace weft::test {

// The seed of this run, which chaos uses as well. Call from: the test's main thread.
inline std::uint64_t seed() {
#ifdef WEFT_CHAOS
  return sched::chaos_seed();
#endif
  static const std::uint64_t chosen = [] {
    const char* given = std::getenv("WEFT_SEED");
    const std::uint64_t value =
        given != nullptr ? std::strtoull(given, nullptr, 0) : std::random_device{}();
    std::printf("WEFT_SEED=%llu\n", static_cast<unsigned long long>(value));
    std::fflush(stdout);  // before anything can crash
    return value;
  }();
  return chosen;
}

// A counter whose bits are stirred until they look independent. One for each thread.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {
    state_ += 0x9e3779b97f4a7c15;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

  // 0 .. limit - 1. Not exactly even; nothing here minds.
  std::uint64_t below(std::uint64_t limit) { return next() % limit; }

  bool one_in(std::uint64_t n) { return below(n) == 0; }

 private:
  std::uint64_t state_;
};

}  // namespace weft::test
