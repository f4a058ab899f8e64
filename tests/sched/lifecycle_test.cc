// Starting, draining and stopping runtimes: with fibers in every state, again and again, several at once.

#include <weft/fiber.h>
#include <weft/net.h>
#include <weft/runtime.h>
#include <weft/scope.h>
#include <weft/time.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include <catch2/catch.hpp>

#include "tests/support/on_fiber.h"
#include "tests/support/proc.h"
#include "tests/support/sanitizer.h"

using namespace weft;
using test::park_until_interrupted;

namespace {

constexpr bool kSanitized = test::kAddressSanitizer || test::kThreadSanitizer;

Options quick(int workers) {
  return {.workers = workers, .handle_signals = false, .drain = absl::ZeroDuration()};
}

std::unique_ptr<Runtime> started(Options options) {
  auto runtime = Runtime::start(std::move(options));
  REQUIRE(runtime.ok());
  return *std::move(runtime);
}

}  // namespace

TEST_CASE("runtime: bad options are refused with kInvalidArgument", "[runtime]") {
  const Options options =
      GENERATE(Options{.workers = -1}, Options{.workers = 1025},
               Options{.workers = 1, .stack_size = 0}, Options{.workers = 1, .stack_size = 5000});
  CHECK(Runtime::start(options).status().code() == absl::StatusCode::kInvalidArgument);
}

TEST_CASE("runtime: stop ends sleeping, parked, reading and spawning fibers, each once",
          "[runtime][I11]") {
  const int workers = GENERATE(1, 2, 4);
  constexpr int kEach = 50;
  std::atomic<int> sleeping{0}, joining{0}, accepting{0}, spawning{0};
  std::atomic<int> parked{0};
  std::array<std::atomic<int>, kEach> links{};  // how many of each chain have begun
  auto runtime = started(quick(workers));
  std::vector<std::unique_ptr<Fiber<void>>> for_ever;
  // A link stays until the next one has begun: of each chain there is always one that was started, and
  // that is not yet through, so somebody in it sees the cancellation.
  std::function<void(std::atomic<int>&)> spawn_again = [&](std::atomic<int>& begun) {
    const int mine = ++begun;
    // Its successor may be refused: then this chain ends.
    auto next = background().spawn([&] { spawn_again(begun); });
    while (begun == mine && !this_fiber::cancelled()) this_fiber::yield();
    if (!this_fiber::cancelled()) return;
    ++spawning;
    next.join().IgnoreError();
  };
  for (int i = 0; i < kEach; ++i) {
    for_ever.push_back(std::make_unique<Fiber<void>>(runtime->root().spawn([&] {
      ++parked;
      sleeping += park_until_interrupted() == absl::StatusCode::kCancelled ? 1 : 0;
    })));
    runtime->root().spawn([&, target = for_ever.back().get()] {
      ++parked;
      const absl::StatusCode code = target->wait().code();
      // The one that it waits for may have ended first.
      joining += code == absl::StatusCode::kCancelled || code == absl::StatusCode::kOk ? 1 : 0;
    });
    runtime->root().spawn([&] {
      auto listener = TcpListener::bind("127.0.0.1:0");
      ++parked;
      if (listener.ok()) {
        accepting += listener->accept().status().code() == absl::StatusCode::kCancelled ? 1 : 0;
      }
    });
    runtime->root().spawn([&, chain = &links[static_cast<unsigned>(i)]] { spawn_again(*chain); });
  }
  runtime
      ->block_on([&] {
        test::yield_until([&] {
          return parked == 3 * kEach && std::all_of(links.begin(), links.end(),
                                                    [](const auto& begun) { return begun >= 2; });
        });
      })
      .IgnoreError();
  CHECK(runtime->stop().ok());
  CHECK(sleeping == kEach);
  CHECK(joining == kEach);
  CHECK(accepting == kEach);
  CHECK(spawning >= kEach);
  for (auto& fiber : for_ever) CHECK(fiber->done());
}

TEST_CASE("runtime: stop gives up on a fiber that does not end, and can be called again",
          "[runtime][I11]") {
  const int workers = GENERATE(1, 2);
  Options options = quick(workers);
  options.shutdown_limit = absl::Milliseconds(20);
  auto runtime = started(options);
  std::atomic<bool> running{false};
  std::atomic<bool> may_end{false};
  auto fiber = runtime->root().spawn(
      [&] {
        running = true;
        test::yield_until([&] { return may_end.load(); });
      },
      {.name = "stubborn"});
  while (!running) sched_yield();
  const absl::Status first = runtime->stop();
  CHECK(first.code() == absl::StatusCode::kDeadlineExceeded);
  CHECK(std::string(first.message()).find("\"stubborn\" spawned at ") != std::string::npos);
  CHECK(runtime->stop().code() == absl::StatusCode::kDeadlineExceeded);
  CHECK_FALSE(fiber.done());
  may_end = true;
  CHECK(fiber.wait().ok());
  CHECK(runtime->stop().ok());
  CHECK(runtime->stop().ok());
}

TEST_CASE("runtime: drain is seen by fibers, and cancels nobody", "[runtime]") {
  bool before = true;
  bool after = false;
  absl::StatusCode code = absl::StatusCode::kUnknown;
  auto runtime = started(quick(2));
  std::atomic<bool> asked{false};
  auto fiber = runtime->root().spawn([&] {
    before = draining();
    asked = true;
    test::yield_until([] { return draining(); });
    after = draining();
    code = sleep_for(absl::Microseconds(1)).code();
  });
  while (!asked) sched_yield();
  runtime->drain();
  CHECK(fiber.wait().ok());
  CHECK_FALSE(before);
  CHECK(after);
  CHECK(code == absl::StatusCode::kOk);
  CHECK_FALSE(draining());
}

TEST_CASE("runtime: a fiber cannot stop its own runtime", "[runtime]") {
  auto runtime = started(quick(2));
  absl::Status status;
  CHECK(runtime->block_on([&] { status = runtime->stop(); }).ok());
  CHECK(status.code() == absl::StatusCode::kFailedPrecondition);
}

TEST_CASE("runtime: a group with a timeout may outlive its runtime", "[runtime]") {
  std::unique_ptr<FiberGroup> group;
  test::on_fiber({.workers = 1}, [&] {
    group = std::make_unique<FiberGroup>(ScopeOptions{.timeout = absl::Hours(1)});
    group->spawn([] {});
    static_cast<void>(group->join());
  });
  CHECK(group->size() == 0);
  bool ran = false;
  CHECK(group->spawn([&ran] { ran = true; }).join().code() ==
        absl::StatusCode::kFailedPrecondition);
  CHECK_FALSE(ran);
  group.reset();
}

TEST_CASE("runtime: several at once, and a fiber of one may wait for fibers of the others",
          "[runtime][C12]") {
  constexpr int kRuntimes = 6;
  std::vector<std::unique_ptr<Runtime>> runtimes;
  for (int i = 0; i < kRuntimes; ++i) runtimes.push_back(started(quick(1 + i % 3)));
  std::vector<Fiber<int>> sums;
  for (int i = 0; i < kRuntimes; ++i) {
    sums.push_back(runtimes[static_cast<unsigned>(i)]->root().spawn([&runtimes, i] {
      int sum = 0;
      for (int round = 0; round < 20; ++round) {
        Runtime& other =
            *runtimes[static_cast<unsigned>((i + 1 + round % (kRuntimes - 1)) % kRuntimes)];
        auto far = other.root().spawn([round] {
          for (int turns = round % 3; turns > 0; --turns) this_fiber::yield();
          static_cast<void>(sleep_for(absl::Microseconds(10)));
          return round;
        });
        if (round % 4 == 3) far.cancel();
        sum += far.join().ok() || round % 4 == 3 ? 1 : 0;
      }
      return sum;
    }));
  }
  for (auto& sum : sums) CHECK(sum.join().value_or(0) == 20);
  for (auto& runtime : runtimes) CHECK(runtime->stop().ok());
}

TEST_CASE("runtime: the 65th at once is refused, and its place is free after an end", "[runtime]") {
  std::vector<std::unique_ptr<Runtime>> runtimes;
  for (int i = 0; i < 64; ++i) runtimes.push_back(started(quick(1)));
  CHECK(Runtime::start(quick(1)).status().code() == absl::StatusCode::kResourceExhausted);
  runtimes.erase(runtimes.begin() + 20);
  auto next = Runtime::start(quick(1));
  REQUIRE(next.ok());
  CHECK((*next)->block_on([] { return 1; }).value_or(0) == 1);
}

TEST_CASE("runtime: its last owner may be one of its own fibers", "[runtime][I10]") {
  { const auto warm = started(quick(1)); }
  const test::ProcessUse before = test::process_use();
  std::shared_ptr<Runtime> runtime = started(quick(2));
  std::atomic<bool> alone{false};
  std::promise<void> destroyed;
  runtime->root().spawn([owner = runtime, &alone, &destroyed]() mutable {
    while (!alone) this_fiber::yield();
    owner.reset();
    this_fiber::yield();  // this fiber goes on; the runtime ends when it has ended
    destroyed.set_value();
  });
  runtime.reset();
  alone = true;
  destroyed.get_future().wait();
  CHECK(test::process_use(before.threads).threads == before.threads);
}

TEST_CASE("runtime: starts and stops leave nothing behind", "[runtime][C12]") {
  const bool many_workers = GENERATE(false, true);
  const int rounds = many_workers                          ? kSanitized ? 20 : 100
                     : std::getenv("WEFT_SOAK") != nullptr ? 10'000
                     : kSanitized                          ? 100
                                                           : 1'000;
  const auto cycle = [many_workers](int i) {
    std::atomic<int> ran{0};
    auto runtime = started(quick(many_workers ? 8 : 1 + i % 3));
    for (int j = 0; j < 4; ++j) {
      runtime->root().spawn([&ran] {
        this_fiber::yield();
        ++ran;
        if (ran % 2 == 0) static_cast<void>(park_until_interrupted());
      });
    }
    const bool answered = runtime->block_on([] { return true; }).value_or(false);
    return runtime->stop().ok() && answered;
  };
  int failures = 0;
  for (int i = 0; i < 50; ++i) failures += cycle(i) ? 0 : 1;
  const test::ProcessUse before = test::process_use();
  for (int i = 0; i < rounds; ++i) failures += cycle(i) ? 0 : 1;
  const test::ProcessUse after = test::process_use(before.threads);
  std::printf("rounds=%d resident %ld -> %ld KiB\n", rounds, before.resident_kib,
              after.resident_kib);
  CHECK(failures == 0);
  CHECK(after.threads == before.threads);
  CHECK(after.descriptors == before.descriptors);
  CHECK(after.mappings <= before.mappings + (kSanitized ? 100 : 4));
  if (!kSanitized) CHECK(after.resident_kib - before.resident_kib < 1024);
}
