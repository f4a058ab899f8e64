// A tree of scopes, cancelled from its root: however deep it is, and while it changes.

#include <weft/fiber.h>
#include <weft/runtime.h>
#include <weft/scope.h>

#include <atomic>
#include <functional>

#include <catch2/catch.hpp>

#include "tests/support/on_fiber.h"

using namespace weft;
using test::on_fiber;
using test::park_until_interrupted;
using test::yield_until;

TEST_CASE("scope: 100 nested scopes hear of the outermost one's cancellation", "[scope]") {
  const int workers = GENERATE(1, 2, 4);
  std::atomic<int> children{0};
  std::atomic<int> joins{0};
  on_fiber({.workers = workers}, [&] {
    std::atomic<int> parked{0};
    FiberGroup group;
    std::function<void(int)> nest = [&](int left) {
      if (left == 0) return;
      Scope scope;
      scope.spawn([&] {
        ++parked;
        children += park_until_interrupted() == absl::StatusCode::kCancelled ? 1 : 0;
      });
      nest(left - 1);
      joins += scope.join().code() == absl::StatusCode::kCancelled ? 1 : 0;
    };
    group.spawn([&nest] { nest(100); }, {.stack_size = 1 << 20});
    yield_until([&] { return parked == 100; });
    group.cancel();
    static_cast<void>(group.join());
  });
  CHECK(children == 100);
  CHECK(joins == 100);
}

// Under TSan this also looks at how a scope enters the tree that a canceller walks.
TEST_CASE("scope: cancelling while scopes come and go loses nobody", "[scope]") {
  const int workers = GENERATE(1, 2, 4);
  std::atomic<int> ended{0};
  on_fiber({.workers = workers}, [&] {
    for (int round = 0; round < 50; ++round) {
      std::atomic<int> running{0};
      FiberGroup group;
      for (int i = 0; i < 4; ++i) {
        group.spawn([&] {
          ++running;
          while (!this_fiber::cancelled()) {
            Scope scope;
            scope.spawn([] { static_cast<void>(park_until_interrupted()); });
            Scope inner({.timeout = absl::Seconds(1000)});
            this_fiber::yield();
          }
          ++ended;
        });
      }
      yield_until([&] { return running == 4; });
      for (int turns = round % 7; turns > 0; --turns) this_fiber::yield();
      group.cancel();
      static_cast<void>(group.join());
    }
  });
  CHECK(ended == 200);
}

// A canceller that went down by recursion would need a megabyte of stack for this tree.
TEST_CASE("scope: a tree of 10,000 levels is cancelled from a small stack", "[scope]") {
  constexpr int kDepth = 10'000;
  const int workers = GENERATE(1, 2);
  std::atomic<int> cancelled{0};
  on_fiber({.workers = workers}, [&] {
    std::atomic<bool> deepest{false};
    FiberGroup group;
    std::function<void(int)> descend = [&](int left) {
      if (left == 0) {
        deepest = true;
        cancelled += park_until_interrupted() == absl::StatusCode::kCancelled ? 1 : 0;
        return;
      }
      Scope scope;
      scope.spawn([&descend, left] { descend(left - 1); });
      cancelled += scope.join().code() == absl::StatusCode::kCancelled ? 1 : 0;
    };
    group.spawn([&descend] { descend(kDepth); });
    yield_until([&] { return deepest.load(); });
    group.cancel();
    static_cast<void>(group.join());
  });
  CHECK(cancelled == kDepth + 1);
}
