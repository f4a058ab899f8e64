// The spin lock keeps threads apart and publishes what was written under it.
#include "runtime/base/spin_lock.h"

#include <mutex>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>

TEST_CASE("spin_lock: is one byte, and try_lock fails while it is held", "[spin_lock]") {
  weft::base::SpinLock lock;
  CHECK(sizeof lock == 1);
  REQUIRE(lock.try_lock());
  CHECK_FALSE(lock.try_lock());
  lock.unlock();
  CHECK(lock.try_lock());
  lock.unlock();
}

TEST_CASE("spin_lock: no increment under it is lost", "[spin_lock]") {
  constexpr int kThreads = 3;
  constexpr int kRounds = 30'000;
  weft::base::SpinLock lock;
  int count = 0;  // plain: a lock that does not exclude or publish is a race for TSan, too
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int round = 0; round < kRounds; ++round) {
        if (round % 2 == 0) {
          std::lock_guard guard(lock);
          ++count;
        } else {
          while (!lock.try_lock()) std::this_thread::yield();
          ++count;
          lock.unlock();
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(count == kThreads * kRounds);
}
