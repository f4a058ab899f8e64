// Runs a relacy test over many interleavings; stops at the first that fails, and prints it.
#pragma once

#include <cstdlib>
#include <iostream>
#include <ostream>

#include "tests/model/relacy_atomic.h"

namespace weft::relacy {

// Returns whether nothing failed. WEFT_SCHEDULES says how many random interleavings to draw instead;
// WEFT_SOAK draws five times as many.
template <class Test>
bool explore(rl::scheduler_type_e search, rl::iteration_t iterations) {
  if (std::getenv("WEFT_SOAK") != nullptr) iterations *= 5;
  if (const char* text = std::getenv("WEFT_SCHEDULES"))
    iterations = std::strtoull(text, nullptr, 0);
  std::ostream nowhere(nullptr);
  rl::test_params params;
  params.search_type = search;
  params.context_bound = 2;
  params.iteration_count = iterations;
  params.progress_stream = &nowhere;
  const bool good = rl::simulate<Test>(params);
  std::cout << "iterations: " << params.stop_iteration << "\n";
  return good;
}

// The random scheduler lets all threads take about as many steps: one that has few is through before
// another one has come far. This one waits for a random time, of `steps_max` at most.
inline void let_others_go_first(unsigned steps_max) {
  Atomic<int> nothing{0};
  for (unsigned steps = rl::rand(steps_max); steps > 0; --steps) {
    nothing.store(0, std::memory_order_relaxed);
  }
}

template <class Test>
bool explore_randomly(rl::iteration_t iterations) {
  return explore<Test>(rl::sched_random, iterations);
}

}  // namespace weft::relacy
