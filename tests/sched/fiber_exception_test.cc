// A fiber's exception belongs to whoever asks first: the fiber's own join, or its group's.

#include <weft/fiber.h>
#include <weft/runtime.h>
#include <weft/scope.h>

#include <atomic>
#include <optional>
#include <stdexcept>
#include <string>

#include <catch2/catch.hpp>

#include "tests/support/on_fiber.h"

using namespace weft;
using test::on_fiber;

namespace {

struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// What `f` throws, or "" if it does not.
template <class F>
std::string thrown_by(F&& f) {
  try {
    static_cast<void>(f());
  } catch (const Failure& failure) {
    return failure.what();
  }
  return "";
}

}  // namespace

TEST_CASE("fiber: its exception reaches the joiner, and then no longer the group", "[fiber][A8]") {
  const int workers = GENERATE(1, 2, 4);
  std::string joined;
  std::string by_group = "not asked";
  absl::Status group_status = absl::UnknownError("");
  absl::StatusCode second = absl::StatusCode::kOk;
  on_fiber({.workers = workers}, [&] {
    Scope scope;
    auto fiber = scope.spawn([]() -> int { throw Failure("to the joiner"); });
    joined = thrown_by([&] { return fiber.join(); });
    second = fiber.join().status().code();
    by_group = thrown_by([&] { return group_status = scope.join(); });
  });
  CHECK(joined == "to the joiner");
  CHECK(second == absl::StatusCode::kFailedPrecondition);
  CHECK(by_group == "");
  CHECK(group_status.ok());
}

TEST_CASE("fiber: its exception reaches the group's join, and its siblings are cancelled",
          "[fiber][A8]") {
  const int workers = GENERATE(1, 2, 4);
  std::string joined;
  std::atomic<int> cancelled{0};
  absl::Status second = absl::UnknownError("");
  on_fiber({.workers = workers}, [&] {
    Scope scope;
    for (int i = 0; i < 10; ++i) {
      scope.spawn([&] {
        cancelled += test::park_until_interrupted() == absl::StatusCode::kCancelled ? 1 : 0;
      });
    }
    while (scope.size() != 10) this_fiber::yield();
    scope.spawn([] {
      this_fiber::yield();
      throw Failure("to the group");
    });
    joined = thrown_by([&] { return scope.join(); });
    second = scope.join();
  });
  CHECK(joined == "to the group");
  // Those that had not started when the exception came ended unrun.
  CHECK(cancelled <= 10);
  CHECK(second.ok());
}

TEST_CASE("fiber: an exception that was joined for in vain is still the group's", "[fiber][A8]") {
  std::string joined;
  on_fiber({.workers = 2}, [&] {
    Scope scope;
    {
      auto dropped = scope.spawn([] { throw Failure("nobody holds a handle"); });
    }
    joined = thrown_by([&] { return scope.join(); });
  });
  CHECK(joined == "nobody holds a handle");
}

TEST_CASE("fiber: a scope that dies while its maker's stack unwinds ends its fibers first",
          "[fiber][A8]") {
  std::string caught;
  std::atomic<int> ended{0};
  on_fiber({.workers = 2}, [&] {
    caught = thrown_by([&]() -> int {
      Scope scope;
      std::atomic<int> parked{0};
      for (int i = 0; i < 3; ++i) {
        scope.spawn([&] {
          ++parked;
          static_cast<void>(test::park_until_interrupted());
          ++ended;
        });
      }
      while (parked != 3) this_fiber::yield();
      throw Failure("the maker's");
    });
  });
  CHECK(caught == "the maker's");
  CHECK(ended == 3);
}

TEST_CASE("fiber: exceptions reach foreign threads and outlive the runtime", "[fiber][A8]") {
  auto runtime = Runtime::start({.workers = 2});
  REQUIRE(runtime.ok());
  CHECK_THROWS_AS((*runtime)->block_on([]() -> int { throw Failure("out"); }), Failure);
  std::optional<Fiber<void>> kept((*runtime)->root().spawn([] { throw Failure("later"); }));
  CHECK(kept->wait().ok());
  // The root group would end the process for an exception that nobody takes.
  CHECK(thrown_by([&] { return kept->join(); }) == "later");
  CHECK((*runtime)->stop().ok());
}

TEST_CASE("run: the body's exception comes out of run()", "[fiber][A8]") {
  CHECK(thrown_by([] {
          return on_fiber({.workers = 2}, []() -> int { throw Failure("out of run"); });
        }) == "out of run");
  CHECK(on_fiber({.workers = 1}, [] { return 5; }) == 5);
  CHECK(on_fiber({.workers = 1}, [] { return absl::OkStatus(); }) == 0);
  CHECK(on_fiber({.workers = 1}, [] { return absl::InternalError("expected here"); }) == 1);
}
