// What the pool keeps and what it gives back, minute by minute, under a clock that the test moves.
#include <cstddef>
#include <cstdint>
#include <vector>

#include <catch2/catch.hpp>

#include "runtime/os/memory.h"
#include "runtime/os/system.h"
#include "runtime/sched/stack_cache.h"
#include "runtime/sched/stack_pool.h"
#include "tests/death.h"

namespace {

using namespace weft::sched;

constexpr std::uint64_t kNever = StackPool::kNever;
constexpr std::uint64_t kStart = 1'000'000;
constexpr std::uint64_t kMinute = StackPool::kWindowNs;

// A worker that never runs anything but this.
struct Worker {
  explicit Worker(StackPool& of) : pool(of), cache(of) {}

  void use(std::size_t count) {
    std::vector<Stack*> stacks;
    for (std::size_t i = 0; i < count; ++i) {
      stacks.push_back(cache.acquire());
      *(stacks.back()->top - 1) = std::byte{1};
    }
    for (Stack* stack : stacks) cache.release(stack);
  }

  // Sleeps and comes back as long as the pool has something to do at once.
  std::uint64_t sleep(std::uint64_t now_ns) {
    std::uint64_t next = cache.trim(now_ns);
    for (int i = 0; i < 1000 && next <= now_ns; ++i) next = cache.trim(now_ns);
    return next;
  }

  // Idle stacks with pages, those of the cache included.
  std::size_t warm() const {
    const StackUsage usage = pool.usage();
    return usage.warm + usage.out;
  }

  StackPool& pool;
  StackCache cache;
};

}  // namespace

TEST_CASE("stack trim: an untouched pool asks for no timer", "[stack]") {
  StackPool pool({});
  StackCache cache(pool);
  CHECK(cache.trim(kStart) == kNever);
  CHECK(pool.usage().arenas == 0);
}

TEST_CASE(
    "stack trim: the peak of a minute is kept, then half of it, then half of that, to nothing",
    "[stack]") {
  StackPool pool({});
  Worker worker(pool);
  worker.use(1000);
  std::uint64_t now = kStart;
  REQUIRE(worker.sleep(now) == now + kMinute);
  CHECK(worker.warm() == 1000);
  CHECK(worker.sleep(now + kMinute - 1) == now + kMinute);
  CHECK(worker.warm() == 1000);

  std::size_t kept = 1000;
  now = worker.sleep(now);
  for (std::uint64_t next; (next = worker.sleep(now)) != kNever; now = next) {
    REQUIRE(next == now + kMinute);
    CHECK(worker.warm() <= std::max<std::size_t>(kept, 8));
    kept /= 2;
    REQUIRE(now < kStart + 20 * kMinute);
  }
  CHECK(worker.pool.usage().warm == 0);
  CHECK(worker.pool.usage().arenas <= 1);  // where the few in the worker's cache live
}

TEST_CASE("stack trim: what is used again within the minute stays", "[stack]") {
  StackPool pool({});
  Worker worker(pool);
  worker.use(1000);
  std::uint64_t now = kStart;
  for (int minute = 0; minute < 5; ++minute) {
    worker.sleep(now);
    worker.use(700);
    now += kMinute;
  }
  worker.sleep(now);
  CHECK(worker.warm() >= 700);
  CHECK(worker.warm() <= 710);
}

TEST_CASE("stack trim: stacks in use are never given back, and their neighbours are",
          "[stack][G6]") {
  StackPool pool({});
  Worker worker(pool);
  std::vector<Stack*> held;
  std::vector<Stack*> idle;
  for (int i = 0; i < 400; ++i) {
    (i % 40 == 0 ? held : idle).push_back(worker.cache.acquire());
  }
  for (Stack* stack : held) *(stack->top - 1) = std::byte{0x5a};
  for (Stack* stack : idle) *(stack->top - 1) = std::byte{0x5a};
  for (Stack* stack : idle) worker.cache.release(stack);
  std::uint64_t now = kStart;
  while ((now = worker.sleep(now)) != kNever) {
  }
  CHECK(pool.usage().warm == 0);
  for (Stack* stack : held) {
    CHECK(*(stack->top - 1) == std::byte{0x5a});
    CHECK(weft::test::is_unreadable(stack->low - 1));
  }
  // Cold stacks come back empty, and guarded.
  std::size_t empty = 0;
  idle.clear();
  for (int i = 0; i < 300; ++i) {
    Stack* stack = worker.cache.acquire();
    empty += *(stack->top - 1) == std::byte{0} ? 1 : 0;
    CHECK(weft::test::is_unreadable(stack->low - 1));
    idle.push_back(stack);
  }
  CHECK(empty >= 290);
  CHECK(weft::test::faults(idle.back()->low - 1));
  for (Stack* stack : idle) worker.cache.release(stack);
  for (Stack* stack : held) worker.cache.release(stack);
}

TEST_CASE("stack trim: whole arenas go first", "[stack]") {
  StackPool pool({});
  Worker worker(pool);
  worker.use(2048);
  const std::size_t arenas = pool.usage().arenas;
  REQUIRE(arenas > 2);
  std::uint64_t now = worker.sleep(kStart);
  now = worker.sleep(now);  // keeps the peak
  now = worker.sleep(now);  // keeps half of it: the youngest arena is the other half
  CHECK(pool.usage().arenas < arenas);
  CHECK(pool.usage().cold <= 8);
}

TEST_CASE("stack trim: prewarm is the floor, and needs no timer", "[stack]") {
  StackPool pool({.prewarm = 100});
  REQUIRE(pool.prewarm().ok());
  Worker worker(pool);
  CHECK(worker.sleep(kStart) == kNever);
  worker.use(100);
  CHECK(worker.sleep(kStart) == kNever);
  CHECK(worker.warm() == 100);
  worker.use(500);
  std::uint64_t now = kStart;
  while ((now = worker.sleep(now)) != kNever) {
  }
  CHECK(worker.warm() == 100);
}

TEST_CASE("stack trim: one sleeping worker holds the timer, until it wakes or ends", "[stack]") {
  StackPool pool({});
  Worker first(pool);
  Worker second(pool);
  Worker third(pool);
  first.use(200);
  CHECK(first.sleep(kStart) == kStart + kMinute);
  CHECK(second.sleep(kStart) == kNever);
  CHECK(first.sleep(kStart) == kStart + kMinute);
  first.cache.woke();
  CHECK(second.sleep(kStart) == kStart + kMinute);
  CHECK(first.sleep(kStart) == kNever);
  {
    Worker last(pool);
    second.cache.woke();
    CHECK(last.sleep(kStart) == kStart + kMinute);
  }
  CHECK(third.sleep(kStart) == kStart + kMinute);
}

TEST_CASE("stack trim: memory that cannot be released stays guarded and is used again", "[stack]") {
  StackPool pool({});
  Worker worker(pool);
  worker.use(300);
  weft::os::system::arm_fault(weft::os::system::Call::kMadvise, 0, EINVAL, ~0u, 4);  // DONTNEED
  weft::os::system::arm_fault(weft::os::system::Call::kMunmap, 0, ENOMEM, ~0u);
  std::uint64_t now = kStart;
  while ((now = worker.sleep(now)) != kNever) {
  }
  weft::os::system::disarm_faults();
  worker.use(300);
  Stack* stack = worker.cache.acquire();
  CHECK(weft::test::faults(stack->low - 1));
  worker.cache.release(stack);
}
