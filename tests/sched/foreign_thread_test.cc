// What a thread that is no fiber may do: spawn, wait, join, cancel, and ask for figures.

#include <weft/fiber.h>
#include <weft/runtime.h>
#include <weft/scope.h>
#include <weft/time.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>

#include "tests/support/on_fiber.h"
#include "tests/support/sanitizer.h"

using namespace weft;
using test::park_until_interrupted;

namespace {

constexpr int kScale = test::kAddressSanitizer || test::kThreadSanitizer ? 1 : 10;

std::unique_ptr<Runtime> started(int workers) {
  auto runtime =
      Runtime::start({.workers = workers, .handle_signals = false, .drain = absl::ZeroDuration()});
  REQUIRE(runtime.ok());
  return *std::move(runtime);
}

}  // namespace

TEST_CASE("foreign: block_on gives the body's result, and flattens it", "[foreign]") {
  auto runtime = started(2);
  CHECK(runtime->block_on([] { return 4; }).value_or(0) == 4);
  CHECK(runtime->block_on([] {}).ok());
  CHECK(runtime->block_on([] { return absl::NotFoundError("no"); }) == absl::NotFoundError("no"));
  CHECK(**runtime->block_on([] { return std::make_unique<int>(5); }) == 5);
}

TEST_CASE("foreign: many threads spawn, wait and join at once", "[foreign][C4]") {
  const int workers = GENERATE(1, 2, 4);
  constexpr int kThreads = 6;
  const int each = 100 * kScale;
  auto runtime = started(workers);
  std::atomic<int> ran{0};
  std::atomic<int> right{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < each; ++i) {
        auto fiber = runtime->root().spawn([&ran, i] {
          if (i % 3 == 0) this_fiber::yield();
          ++ran;
          return i;
        });
        if (i % 2 == t % 2) static_cast<void>(fiber.wait());
        if (i % 5 == 0) continue;  // the handle is dropped, perhaps before the end
        right += fiber.join().value_or(-1) == i ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(right == kThreads * each * 4 / 5);
  CHECK(runtime->stop().ok());
  CHECK(ran <= kThreads * each);
}

TEST_CASE("foreign: many threads and fibers wait for one fiber", "[foreign]") {
  auto runtime = started(2);
  std::atomic<bool> go{false};
  std::atomic<int> waiting{0};
  std::atomic<int> waited{0};
  auto fiber = runtime->root().spawn([&] { test::yield_until([&] { return go.load(); }); });
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&] {
      ++waiting;
      waited += fiber.wait().ok() ? 1 : 0;
    });
    runtime->root().spawn([&] {
      ++waiting;
      waited += fiber.wait().ok() ? 1 : 0;
    });
  }
  while (waiting != 12) std::this_thread::yield();
  go = true;
  for (std::thread& thread : threads) thread.join();
  while (waited != 12) std::this_thread::yield();
  CHECK(fiber.done());
}

TEST_CASE("foreign: cancelling a fiber, and a group, from another thread", "[foreign]") {
  const int workers = GENERATE(1, 2, 4);
  auto runtime = started(workers);
  for (int round = 0; round < 20 * kScale; ++round) {
    FiberGroup group(*runtime);
    std::atomic<int> cancelled{0};
    std::atomic<int> parked{0};
    const auto body = [&] {
      ++parked;
      cancelled += park_until_interrupted() == absl::StatusCode::kCancelled ? 1 : 0;
    };
    auto one = group.spawn(body);
    group.spawn(body);
    group.spawn(body);
    while (parked != 3) std::this_thread::yield();
    one.cancel();
    const bool joined = one.join().ok();
    const bool alone = cancelled == 1;
    group.cancel();
    const bool all_joined = group.join().ok();
    if (!joined || !alone || !all_joined || cancelled != 3) {
      FAIL("round " << round << ": " << joined << alone << all_joined << cancelled);
    }
  }
}

TEST_CASE("foreign: a group made there keeps its timeout", "[foreign]") {
  const int workers = GENERATE(1, 2, 4);
  auto runtime = started(workers);
  for (int round = 0; round < 10; ++round) {
    absl::StatusCode code = absl::StatusCode::kOk;
    FiberGroup group(*runtime, {.timeout = absl::Milliseconds(round % 3)});
    group.spawn([&code] { code = park_until_interrupted(); }).wait().IgnoreError();
    const absl::Status joined = group.join();
    CHECK((code == absl::StatusCode::kDeadlineExceeded || code == absl::StatusCode::kOk));
    CHECK(joined.code() == absl::StatusCode::kDeadlineExceeded);
  }
  FiberGroup far(*runtime, {.timeout = absl::Hours(1)});
  CHECK(far.spawn([] { return sleep_for(absl::Microseconds(1)); }).join().ok());
}

TEST_CASE("foreign: metrics never count more fibers than there can be", "[foreign]") {
  auto runtime = started(2);
  std::atomic<bool> over{false};
  std::atomic<std::uint64_t> most{0};
  std::thread reader([&] {
    while (!over) {
      const std::uint64_t fibers = runtime->metrics().fibers;
      if (fibers > most) most = fibers;
    }
  });
  constexpr int kThreads = 2;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 1000 * kScale; ++i) static_cast<void>(runtime->block_on([] {}));
    });
  }
  for (std::thread& thread : threads) thread.join();
  over = true;
  reader.join();
  // A fiber may be counted as spawned after its end was not: two for each thread, and one to come.
  CHECK(most < 1000);
  CHECK(runtime->metrics().spawned >= 2000);
  CHECK(runtime->stop().ok());
}
