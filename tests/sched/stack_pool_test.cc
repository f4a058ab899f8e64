// Stacks from the pool and its caches: geometry, reuse, guards, and many threads at once.
// What happens when the kernel says no is in stack_shortage_test.cc, giving back in stack_trim_test.cc.
#include "runtime/sched/stack_pool.h"

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>

#include "runtime/os/system.h"
#include "runtime/sched/stack_cache.h"
#include "runtime/sched/stack_registry.h"
#include "tests/death.h"
#include "tests/maps.h"

#if WEFT_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace {

using namespace weft::sched;
using weft::os::system::Call;
using weft::test::faults;

constexpr std::size_t kSmall = kStackBytesMin;

std::byte* slot_begin(const Stack* stack) {
  return stack->low - guard_bytes(stack_class_bytes(stack->size_class));
}

std::byte* slot_end(const Stack* stack) {
  return slot_begin(stack) + stack_class_bytes(stack->size_class);
}

std::vector<Stack*> acquire_many(StackCache& cache, std::size_t count, std::size_t bytes = 0) {
  std::vector<Stack*> stacks;
  for (std::size_t i = 0; i < count; ++i) {
    Stack* stack = cache.acquire(bytes);
    if (stack == nullptr) break;
    stacks.push_back(stack);
  }
  return stacks;
}

void release_all(StackCache& cache, const std::vector<Stack*>& stacks) {
  for (Stack* stack : stacks) cache.release(stack);
}

}  // namespace

TEST_CASE("stack pool: sizes are powers of two from 16 KiB to 1 GiB, or 0", "[stack]") {
  CHECK(validate_stack_bytes(0).ok());
  for (std::size_t bytes = kStackBytesMin; bytes <= kStackBytesMax; bytes *= 2) {
    CHECK(validate_stack_bytes(bytes).ok());
    CHECK(stack_class_bytes(stack_class(bytes)) == bytes);
  }
  const auto bad = GENERATE(as<std::size_t>{}, 1, 4096, kStackBytesMin / 2, kStackBytesMin + 1,
                            kStackBytesMin * 3, kStackBytesMax * 2, ~std::size_t{0});
  const absl::Status status = validate_stack_bytes(bad);
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK(status.message().find(std::to_string(bad)) != std::string::npos);
}

TEST_CASE("stack pool: a guard is a quarter of the stack, at most 64 KiB", "[stack]") {
  CHECK(guard_bytes(16 << 10) == 4 << 10);
  CHECK(guard_bytes(64 << 10) == 16 << 10);
  CHECK(guard_bytes(256 << 10) == 64 << 10);
  CHECK(guard_bytes(1 << 30) == 64 << 10);
}

TEST_CASE("stack pool: a stack lies between its guard and its record", "[stack]") {
  const std::size_t frame_bytes = GENERATE(0, 1, 64, 200);
  const std::size_t bytes = GENERATE(as<std::size_t>{}, 16 << 10, 64 << 10, 256 << 10, 1 << 20);
  StackPool pool({.frame_bytes = frame_bytes});
  StackCache cache(pool);
  Stack* stack = cache.acquire(bytes);
  REQUIRE(stack != nullptr);
  CHECK(stack_class_bytes(stack->size_class) == bytes);
  CHECK(reinterpret_cast<std::uintptr_t>(stack->top) % 64 == 0);
  CHECK(stack->top + frame_bytes <= reinterpret_cast<std::byte*>(stack));
  CHECK(reinterpret_cast<std::byte*>(stack + 1) <= slot_end(stack));
  CHECK(slot_end(stack) - stack->top < 2048);
  CHECK(stack->owner == nullptr);
  std::memset(stack->low, 0x5a, static_cast<std::size_t>(stack->top - stack->low));
  CHECK(faults(stack->low - 1));
  CHECK(faults(slot_begin(stack)));
  cache.release(stack);
}

TEST_CASE("stack pool: the tops of sixteen neighbours lie in sixteen cache sets", "[stack]") {
  StackPool pool({});
  StackCache cache(pool);
  const auto stacks = acquire_many(cache, 32);
  REQUIRE(stacks.size() == 32);
  std::set<std::uintptr_t> offsets;
  for (std::size_t i = 0; i < 16; ++i) {
    offsets.insert(reinterpret_cast<std::uintptr_t>(stacks[i]->top) % 4096);
  }
  CHECK(offsets.size() == 16);
  release_all(cache, stacks);
}

TEST_CASE("stack pool: the stack released last is acquired first", "[stack]") {
  StackPool pool({});
  StackCache cache(pool);
  const auto stacks = acquire_many(cache, 3);
  release_all(cache, stacks);
  CHECK(cache.acquire() == stacks[2]);
  CHECK(cache.acquire() == stacks[1]);
  CHECK(cache.acquire() == stacks[0]);
  release_all(cache, stacks);
}

TEST_CASE("stack pool: a warm stack of another size is reused as well", "[stack]") {
  StackPool pool({});
  StackCache cache(pool);
  Stack* const stack = cache.acquire(kSmall);
  cache.release(stack);
  CHECK(cache.acquire(kSmall) == stack);
  cache.release(stack);
}

TEST_CASE("stack pool: acquire and release make no system call once stacks are warm", "[stack]") {
  StackPool pool({});
  StackCache cache(pool);
  release_all(cache, acquire_many(cache, 500));
  weft::os::system::arm_fault(Call::kMmap, ~0u, ENOMEM);  // counts, and never strikes
  for (int round = 0; round < 10; ++round) release_all(cache, acquire_many(cache, 500));
  for (const Call call : {Call::kMmap, Call::kMunmap, Call::kMprotect, Call::kMadvise}) {
    CHECK(weft::os::system::calls_seen(call) == 0);
  }
  weft::os::system::disarm_faults();
}

TEST_CASE("stack pool: every slot of an arena has a guard, and so has its end", "[stack][G6]") {
  StackPool pool({.default_bytes = kSmall});
  StackCache cache(pool);
  auto stacks = acquire_many(cache, 200);
  REQUIRE(stacks.size() == 200);
  for (std::size_t i = 0; i < stacks.size(); i += 9) {
    CHECK(faults(stacks[i]->low - 1));
    CHECK_FALSE(faults(stacks[i]->low));
  }
  for (const Stack* stack : stacks) {
    if (!find_stack(slot_end(stack))) CHECK(faults(slot_end(stack)));
  }
  release_all(cache, stacks);
}

TEST_CASE("stack pool: a guard survives a hundred thousand reuses and a fork", "[stack][G6]") {
  StackPool pool({});
  StackCache cache(pool);
  std::set<Stack*> used;
  for (int i = 0; i < 100'000; ++i) {
    Stack* stack = cache.acquire(i % 3 == 0 ? kSmall : 0);
    *(stack->top - 1) = std::byte{1};
    used.insert(stack);
    cache.release(stack);
  }
  CHECK(used.size() == 2);
  for (const Stack* stack : used) {
    CHECK(faults(stack->low - 1));
    const auto child = weft::test::death_of([stack] {
      _exit(faults(stack->low - 1) && !faults(stack->low) ? 0 : 1);  // in the child of a child
    });
    CHECK(child.signal == 0);
    CHECK(child.status == 0);
  }
}

TEST_CASE("stack pool: an address finds its stack", "[stack]") {
  StackPool pool({});
  StackCache cache(pool);
  int local = 0;
  CHECK_FALSE(find_stack(&local));
  CHECK_FALSE(find_stack(nullptr));
  CHECK_FALSE(find_stack(reinterpret_cast<void*>(~std::uintptr_t{0})));
  for (const std::size_t bytes : {kSmall, std::size_t{1} << 20}) {
    const auto stacks = acquire_many(cache, 70, bytes);
    for (Stack* stack : stacks) {
      for (const std::byte* at : {slot_begin(stack), stack->low - 1}) {
        const auto place = find_stack(at);
        REQUIRE(place);
        CHECK(place->in_guard);
        CHECK(place->record == stack);
      }
      for (const std::byte* at : {stack->low, stack->top, slot_end(stack) - 1}) {
        const auto place = find_stack(at);
        REQUIRE(place);
        CHECK_FALSE(place->in_guard);
        CHECK(place->record == stack);
        CHECK(place->slot == stack->slot);
        CHECK(place->low == reinterpret_cast<std::uintptr_t>(stack->low));
        CHECK(place->end == reinterpret_cast<std::uintptr_t>(slot_end(stack)));
      }
    }
    release_all(cache, stacks);
  }
}

#if WEFT_ASAN
TEST_CASE("stack pool: an idle stack is poisoned, one in use is not", "[stack]") {
  StackPool pool({});
  StackCache cache(pool);
  for (int round = 0; round < 2; ++round) {
    Stack* stack = cache.acquire();
    const auto usable = static_cast<std::size_t>(stack->top - stack->low);
    CHECK(__asan_region_is_poisoned(stack->low, usable) == nullptr);
    __asan_poison_memory_region(stack->low + usable / 2, 64);  // as a frame that never returned
    cache.release(stack);
    CHECK(__asan_address_is_poisoned(stack->top - 1));
  }
}
#endif

TEST_CASE("stack pool: an ended pool leaves no mapping and no trace in the table", "[stack]") {
  const std::byte* inside = nullptr;
  std::size_t mapped = 0;
  {
    StackPool pool({.prewarm = 10});
    REQUIRE(pool.prewarm().ok());
    StackCache cache(pool);
    Stack* stack = cache.acquire();
    inside = stack->low;
    mapped = pool.usage().mapped_bytes;
    CHECK(weft::test::mappings_in(inside, mapped / 2) > 0);
    cache.release(stack);
  }
  CHECK_FALSE(find_stack(inside));
  CHECK(weft::test::mappings_in(inside, 1) == 0);
}

TEST_CASE("stack pool: threads that trade stacks never hold the same one", "[stack][stress]") {
  const char* given = std::getenv("WEFT_SEED");
  const unsigned seed = given != nullptr ? static_cast<unsigned>(std::strtoul(given, nullptr, 0))
                                         : std::random_device{}();
  std::printf("stack pool stress: WEFT_SEED=%u\n", seed);
  StackPool pool({.prewarm = 16});
  REQUIRE(pool.prewarm().ok());
  std::atomic<unsigned> shared{0};
  std::atomic<std::uint64_t> now_ns{1};
  const auto work = [&](unsigned number) {
    std::mt19937 random(seed + number);
    StackCache cache(pool);
    std::vector<Stack*> held;
    for (unsigned step = 0; step < 20'000; ++step) {
      const unsigned dice = random() % 1000;
      if (dice == 0) {
        // relaxed: a clock of the test that nothing else hangs on.
        now_ns.fetch_add(StackPool::kWindowNs / 2, std::memory_order_relaxed);
        cache.trim(now_ns.load(std::memory_order_relaxed));
        cache.woke();
      } else if (dice < 520 - held.size()) {
        Stack* stack = cache.acquire(dice % 8 == 0 ? kSmall : 0);
        // A second owner would find the first one's name. relaxed: the count only has to be right.
        if (stack->owner != nullptr) shared.fetch_add(1, std::memory_order_relaxed);
        stack->owner = &cache;
        held.push_back(stack);
      } else if (!held.empty()) {
        std::swap(held[random() % held.size()], held.back());
        if (held.back()->owner != &cache) shared.fetch_add(1, std::memory_order_relaxed);
        held.back()->owner = nullptr;
        cache.release(held.back());
        held.pop_back();
      }
    }
    for (Stack* stack : held) {
      stack->owner = nullptr;
      cache.release(stack);
    }
  };
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < 4; ++i) threads.emplace_back(work, i);
  for (std::thread& thread : threads) thread.join();
  CHECK(shared.load(std::memory_order_relaxed) == 0);  // relaxed: the threads are joined
  CHECK(pool.usage().out == 0);
}

// Touches four gigabytes twice; run it as `stack_pool_test "[soak]"`.
TEST_CASE("stack pool: a million guarded stacks in few mappings", "[.][soak][G3]") {
  const std::size_t bytes = GENERATE(as<std::size_t>{}, 64 << 10, 256 << 10);
  constexpr std::size_t kCount = 1'000'000;
  const std::size_t maps_before = weft::test::mapping_count();
  const std::size_t tables_before = weft::test::status_kib("VmPTE:");
  StackPool pool({.default_bytes = bytes});
  StackCache cache(pool);
  const auto begin = std::chrono::steady_clock::now();
  const auto stacks = acquire_many(cache, kCount);
  const std::chrono::duration<double> built = std::chrono::steady_clock::now() - begin;
  REQUIRE(stacks.size() == kCount);
  const std::size_t maps = weft::test::mapping_count() - maps_before;
  const std::size_t tables = weft::test::status_kib("VmPTE:") - tables_before;
  std::printf("stacks=%zu kib=%zu seconds=%.2f arenas=%zu mappings=%zu table_bytes_each=%.0f\n",
              kCount, bytes >> 10, built.count(), pool.usage().arenas, maps,
              1024.0 * static_cast<double>(tables) / kCount);
  CHECK(maps < 1000);
  std::size_t unguarded = 0;
  for (const Stack* stack : stacks) {
    unguarded += weft::test::is_unreadable(stack->low - 1) ? 0 : 1;
    unguarded += weft::test::is_unreadable(stack->low) ? 1 : 0;
  }
  CHECK(unguarded == 0);
  release_all(cache, stacks);
}
