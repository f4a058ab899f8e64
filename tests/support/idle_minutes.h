// Minutes that pass for a pool of stacks while nobody needs one: what gives memory back, told, not waited for.
//
//   test::let_idle_minutes_pass(sched::core_of(runtime)->stacks(), 20);
//
// Requires: no fiber is being started or ended meanwhile.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/os/clock.h"
#include "runtime/sched/stack_cache.h"
#include "runtime/sched/stack_pool.h"

namespace weft::test {

inline void let_idle_minutes_pass(sched::StackPool& pool, int minutes) {
  sched::StackCache clock(pool);
  auto now_ns = static_cast<std::uint64_t>(os::now_ns());
  for (int minute = 0; minute < minutes; ++minute) {
    now_ns += sched::StackPool::kWindowNs;
    // One call gives back a bounded amount, and another worker may hold the timer, so its answer says little.
    for (std::size_t before = ~std::size_t{0}; before != pool.usage().warm;) {
      before = pool.usage().warm;
      clock.trim(now_ns);
    }
  }
}

}  // namespace weft::test
