// Scope and FiberGroup: who waits for whom, which error is reported, and how far a cancellation reaches.

#include <weft/fiber.h>
#include <weft/runtime.h>
#include <weft/scope.h>
#include <weft/time.h>

#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include <absl/strings/cord.h>
#include <catch2/catch.hpp>

#include "tests/support/on_fiber.h"

using namespace weft;
using test::on_fiber;
using test::park_until_interrupted;
using test::yield_until;

namespace {

std::string payloads_of(const absl::Status& status) {
  std::string text;
  status.ForEachPayload([&text](auto, const absl::Cord& payload) { text += std::string(payload); });
  return text;
}

}  // namespace

TEST_CASE("scope: join returns when all have ended, and not before", "[scope]") {
  const int workers = GENERATE(1, 2, 4);
  std::atomic<int> ended{0};
  int at_join = 0;
  absl::Status joined;
  on_fiber({.workers = workers}, [&] {
    Scope scope;
    for (int i = 0; i < 100; ++i) {
      scope.spawn([&ended, i] {
        for (int turns = i % 5; turns > 0; --turns) this_fiber::yield();
        ++ended;
      });
    }
    joined = scope.join();
    at_join = ended;
  });
  CHECK(joined.ok());
  CHECK(at_join == 100);
}

TEST_CASE("scope: children may spawn siblings, and join waits for those too", "[scope]") {
  std::atomic<int> ended{0};
  int at_join = 0;
  on_fiber({.workers = 2}, [&] {
    Scope scope;
    std::function<void(int)> grow = [&](int left) {
      if (left > 0) {
        scope.spawn([&grow, left] { grow(left - 1); });
        scope.spawn([&grow, left] { grow(left - 1); });
      }
      ++ended;
    };
    grow(8);
    static_cast<void>(scope.join());
    at_join = ended;
  });
  CHECK(at_join == (1 << 9) - 1);
}

TEST_CASE("scope: the first error wins and the others are attached", "[scope]") {
  absl::Status joined;
  absl::Status again = absl::UnknownError("");
  on_fiber({.workers = 1}, [&] {
    FiberGroup group({.on_error = OnError::kKeepGoing});
    for (int i = 0; i < 12; ++i) {
      auto fiber = group.spawn([i] { return absl::InternalError("error " + std::to_string(i)); });
      static_cast<void>(fiber.wait());
    }
    joined = group.join();
    again = group.join();
  });
  CHECK(joined.code() == absl::StatusCode::kInternal);
  CHECK(joined.message() == "error 0");
  const std::string others = payloads_of(joined);
  CHECK(others.find("error 1\n") != std::string::npos);
  CHECK(others.find("error 8\n") != std::string::npos);
  CHECK(others.find("error 9") == std::string::npos);
  CHECK(others.find("and 3 more") != std::string::npos);
  CHECK(again.ok());
}

TEST_CASE("scope: an error cancels the siblings, unless the scope keeps going", "[scope]") {
  const int workers = GENERATE(1, 2, 4);
  const OnError rule = GENERATE(OnError::kCancelSiblings, OnError::kKeepGoing);
  absl::StatusCode sibling = absl::StatusCode::kUnknown;
  absl::Status joined;
  on_fiber({.workers = workers}, [&] {
    std::atomic<bool> ready{false};
    std::atomic<bool> failed{false};
    Scope scope({.on_error = rule});
    scope.spawn([&] {
      ready = true;
      if (rule == OnError::kCancelSiblings) {
        sibling = park_until_interrupted();
      } else {
        yield_until([&] { return failed.load(); });
        sibling = this_fiber::checkpoint().code();
      }
    });
    auto bad = scope.spawn([&] {
      yield_until([&] { return ready.load(); });
      return absl::DataLossError("the first");
    });
    static_cast<void>(bad.wait());
    failed = true;
    joined = scope.join();
  });
  CHECK(joined == absl::DataLossError("the first"));
  CHECK(sibling ==
        (rule == OnError::kCancelSiblings ? absl::StatusCode::kCancelled : absl::StatusCode::kOk));
}

TEST_CASE("scope: what a cancelled child says is no error, but a child's own kCancelled is",
          "[scope]") {
  absl::Status after_cancel = absl::UnknownError("");
  absl::Status of_itself;
  on_fiber({.workers = 2}, [&] {
    FiberGroup group;
    std::atomic<bool> parked{false};
    group.spawn([&parked]() -> absl::Status {
      parked = true;
      return sleep_for(absl::InfiniteDuration());
    });
    yield_until([&] { return parked.load(); });
    group.cancel();
    after_cancel = group.join();

    FiberGroup other;
    other.spawn([] { return absl::CancelledError("by my own choice"); });
    of_itself = other.join();
  });
  CHECK(after_cancel.ok());
  CHECK(of_itself.code() == absl::StatusCode::kCancelled);
}

TEST_CASE("scope: a cancellation reaches grandchildren through nested scopes", "[scope]") {
  const int workers = GENERATE(1, 2, 4);
  std::atomic<int> cancelled{0};
  std::atomic<int> joins_cancelled{0};
  absl::Status joined;
  on_fiber({.workers = workers}, [&] {
    std::atomic<int> parked{0};
    FiberGroup group;
    for (int i = 0; i < 3; ++i) {
      group.spawn([&] {
        Scope child;
        for (int j = 0; j < 3; ++j) {
          child.spawn([&] {
            Scope grandchild;
            for (int k = 0; k < 3; ++k) {
              grandchild.spawn([&] {
                ++parked;
                cancelled += park_until_interrupted() == absl::StatusCode::kCancelled ? 1 : 0;
              });
            }
            joins_cancelled += grandchild.join().code() == absl::StatusCode::kCancelled ? 1 : 0;
          });
        }
        joins_cancelled += child.join().code() == absl::StatusCode::kCancelled ? 1 : 0;
      });
    }
    yield_until([&] { return parked == 27; });
    group.cancel();
    joined = group.join();
  });
  CHECK(cancelled == 27);
  CHECK(joins_cancelled == 12);
  CHECK(joined.ok());
}

TEST_CASE("scope: its timeout ends children, grandchildren and its maker's waits", "[scope]") {
  const int workers = GENERATE(1, 2, 4);
  absl::StatusCode child = absl::StatusCode::kOk;
  absl::StatusCode grandchild = absl::StatusCode::kOk;
  absl::StatusCode maker = absl::StatusCode::kOk;
  absl::StatusCode unstarted = absl::StatusCode::kOk;
  absl::Status joined;
  absl::StatusCode outside = absl::StatusCode::kUnknown;
  on_fiber({.workers = workers}, [&] {
    {
      Scope scope({.timeout = absl::Milliseconds(5)});
      scope.spawn([&] {
        Scope inner;
        inner.spawn([&] { grandchild = park_until_interrupted(); });
        child = park_until_interrupted();
        static_cast<void>(inner.join());
      });
      maker = park_until_interrupted();
      unstarted = scope.spawn([] {}).join().code();
      joined = scope.join();
    }
    outside = sleep_for(absl::Microseconds(1)).code();
  });
  CHECK(child == absl::StatusCode::kDeadlineExceeded);
  CHECK(grandchild == absl::StatusCode::kDeadlineExceeded);
  CHECK(maker == absl::StatusCode::kDeadlineExceeded);
  CHECK(unstarted == absl::StatusCode::kDeadlineExceeded);
  CHECK(joined.code() == absl::StatusCode::kDeadlineExceeded);
  CHECK(outside == absl::StatusCode::kOk);
}

TEST_CASE("scope: a join interrupted from outside cancels the children and reports it", "[scope]") {
  const int workers = GENERATE(1, 2, 4);
  absl::StatusCode child = absl::StatusCode::kOk;
  absl::StatusCode joined = absl::StatusCode::kOk;
  absl::StatusCode by_timeout = absl::StatusCode::kOk;
  absl::StatusCode child_by_timeout = absl::StatusCode::kOk;
  bool child_ended_first = false;
  on_fiber({.workers = workers}, [&] {
    FiberGroup group;
    std::atomic<bool> parked{false};
    group.spawn([&] {
      std::atomic<bool> child_ended{false};
      Scope scope;
      scope.spawn([&] {
        parked = true;
        child = park_until_interrupted();
        for (int i = 0; i < 10; ++i) this_fiber::yield();
        child_ended = true;
      });
      joined = scope.join().code();
      child_ended_first = child_ended;
    });
    yield_until([&] { return parked.load(); });
    group.cancel();
    static_cast<void>(group.join());

    Timeout around(absl::Milliseconds(5));
    Scope scope;
    scope.spawn([&] { child_by_timeout = park_until_interrupted(); });
    by_timeout = scope.join().code();
  });
  CHECK(child == absl::StatusCode::kCancelled);
  CHECK(joined == absl::StatusCode::kCancelled);
  CHECK(child_ended_first);
  CHECK(by_timeout == absl::StatusCode::kDeadlineExceeded);
  CHECK(child_by_timeout == absl::StatusCode::kDeadlineExceeded);
}

TEST_CASE("group: an interrupted join leaves the group and its fibers as they are", "[scope]") {
  absl::StatusCode interrupted = absl::StatusCode::kOk;
  absl::StatusCode child = absl::StatusCode::kUnknown;
  absl::Status joined = absl::UnknownError("");
  on_fiber({.workers = 2}, [&] {
    std::atomic<bool> go{false};
    FiberGroup group;
    group.spawn([&] {
      yield_until([&] { return go.load(); });
      child = this_fiber::checkpoint().code();
    });
    {
      Timeout around(absl::Milliseconds(2));
      interrupted = group.join().code();
    }
    go = true;
    joined = group.join();
  });
  CHECK(interrupted == absl::StatusCode::kDeadlineExceeded);
  CHECK(child == absl::StatusCode::kOk);
  CHECK(joined.ok());
}

TEST_CASE("fiber: an interrupted join leaves the handle joinable", "[scope]") {
  absl::StatusCode interrupted = absl::StatusCode::kOk;
  int value = 0;
  on_fiber({.workers = 2}, [&] {
    std::atomic<bool> go{false};
    Scope scope;
    auto fiber = scope.spawn([&] {
      yield_until([&] { return go.load(); });
      return 3;
    });
    {
      Timeout around(absl::Milliseconds(2));
      interrupted = fiber.join().status().code();
    }
    go = true;
    value = fiber.join().value_or(0);
    static_cast<void>(scope.join());
  });
  CHECK(interrupted == absl::StatusCode::kDeadlineExceeded);
  CHECK(value == 3);
}

TEST_CASE("group: one that is joined by its own child says kFailedPrecondition", "[scope]") {
  absl::StatusCode code = absl::StatusCode::kOk;
  absl::Status joined = absl::UnknownError("");
  on_fiber({.workers = 2}, [&] {
    FiberGroup group;
    group.spawn([&] { code = group.join().code(); });
    joined = group.join();
  });
  CHECK(code == absl::StatusCode::kFailedPrecondition);
  CHECK(joined.ok());
}

TEST_CASE("scope: its end without a join cancels, then waits", "[scope]") {
  const int workers = GENERATE(1, 2, 4);
  std::atomic<int> cancelled{0};
  int ended_at_end = 0;
  on_fiber({.workers = workers}, [&] {
    std::atomic<int> parked{0};
    {
      Scope scope;
      for (int i = 0; i < 20; ++i) {
        scope.spawn([&] {
          ++parked;
          const auto code = park_until_interrupted();
          for (int turns = 0; turns < 5; ++turns) this_fiber::yield();
          cancelled += code == absl::StatusCode::kCancelled ? 1 : 0;
        });
      }
      yield_until([&] { return parked == 20; });
    }
    ended_at_end = cancelled;
  });
  CHECK(ended_at_end == 20);
}

TEST_CASE("scope: a cancellation lasts until the scope ends, and never leaks out of it",
          "[scope]") {
  const int workers = GENERATE(1, 2, 4);
  int interrupted = 0;
  int inner_interrupted = 0;
  bool seen_inside = false;
  bool seen_outside = true;
  absl::StatusCode outside = absl::StatusCode::kUnknown;
  absl::StatusCode unrun = absl::StatusCode::kOk;
  on_fiber({.workers = workers}, [&] {
    {
      Scope scope;
      scope.cancel();
      for (int i = 0; i < 50; ++i) {
        interrupted += park_until_interrupted() == absl::StatusCode::kCancelled ? 1 : 0;
        Scope inner;  // inherits it
        inner_interrupted += park_until_interrupted() == absl::StatusCode::kCancelled ? 1 : 0;
        unrun = inner.spawn([] {}).join().code();
      }
      seen_inside = this_fiber::cancelled();
    }
    seen_outside = this_fiber::cancelled();
    outside = sleep_for(absl::Microseconds(1)).code();
  });
  CHECK(interrupted == 50);
  CHECK(inner_interrupted == 50);
  CHECK(unrun == absl::StatusCode::kCancelled);
  CHECK(seen_inside);
  CHECK_FALSE(seen_outside);
  CHECK(outside == absl::StatusCode::kOk);
}

TEST_CASE("scope: leaving a cancelled inner scope does not lose an outer cancellation", "[scope]") {
  absl::StatusCode after_inner = absl::StatusCode::kOk;
  absl::StatusCode after_outer = absl::StatusCode::kUnknown;
  on_fiber({.workers = 2}, [&] {
    {
      Scope outer;
      {
        Scope inner;
        inner.cancel();
        outer.cancel();
        static_cast<void>(park_until_interrupted());
      }
      after_inner = park_until_interrupted();
    }
    after_outer = sleep_for(absl::Microseconds(1)).code();
  });
  CHECK(after_inner == absl::StatusCode::kCancelled);
  CHECK(after_outer == absl::StatusCode::kOk);
}
