// Futexes and the clock: a wait ends by a wake, by another value, or at its deadline.

#include "runtime/os/futex.h"

#include <cerrno>
#include <thread>

#include <catch2/catch.hpp>

#include "runtime/os/clock.h"

using namespace weft;

TEST_CASE("futex: a wait for a value that is gone ends at once", "[futex]") {
  base::Atomic<std::uint32_t> word{1};
  CHECK(os::futex_wait(word, 0) == -EAGAIN);
  CHECK(os::futex_wait_until(word, 0, os::kNever) == -EAGAIN);
  CHECK(os::futex_wake(word, 1) == 0);
}

TEST_CASE("futex: a wait ends at its deadline and not before", "[futex]") {
  base::Atomic<std::uint32_t> word{0};
  const std::int64_t deadline_ns = os::now_ns() + 2'000'000;
  CHECK(os::futex_wait_until(word, 0, deadline_ns) == -ETIMEDOUT);
  CHECK(os::now_ns() >= deadline_ns);
  CHECK(os::futex_wait_until(word, 0, os::now_ns() - 1) == -ETIMEDOUT);
}

TEST_CASE("futex: two threads pass a word back and forth", "[futex]") {
  const os::FutexScope scope = GENERATE(os::FutexScope::kPrivate, os::FutexScope::kShared);
  constexpr std::uint32_t kTurns = 2000;
  base::Atomic<std::uint32_t> word{0};
  // [turn] Even values are this thread's turn, odd ones the other's; each sees what the other did before.
  long plain = 0;
  const auto play = [&](std::uint32_t parity) {
    for (std::uint32_t turn = parity; turn < kTurns; turn += 2) {
      // acquire: [turn] pairs with the other's store below.
      for (std::uint32_t seen; (seen = word.load(std::memory_order_acquire)) != turn;) {
        os::futex_wait(word, seen, scope);
      }
      ++plain;
      word.store(turn + 1, std::memory_order_release);  // [turn] publishes `plain`
      os::futex_wake(word, 1, scope);
    }
  };
  std::thread other(play, 1);
  play(0);
  other.join();
  CHECK(plain == kTurns);
}
