// Fiber: what a spawned function returns and what becomes of it, of its handle and of its closure.

#include <weft/fiber.h>
#include <weft/runtime.h>
#include <weft/scope.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <catch2/catch.hpp>

#include "tests/support/on_fiber.h"

using namespace weft;
using test::on_fiber;
using test::park_until_interrupted;
using test::yield_until;

namespace {

// Counts how many of it are alive. What is moved from counts no longer.
struct Counted {
  static inline std::atomic<int> alive{0};
  static inline std::atomic<int> destroyed{0};

  static void reset() {
    alive = 0;
    destroyed = 0;
  }

  Counted() : real(true) { ++alive; }
  Counted(Counted&& other) noexcept : real(std::exchange(other.real, false)) {}
  Counted& operator=(Counted&&) = delete;
  ~Counted() {
    if (!real) return;
    --alive;
    ++destroyed;
  }
  bool real;
};

struct alignas(64) Aligned {
  std::uint64_t words[16];
};

}  // namespace

TEST_CASE("fiber: join gives every kind of result", "[fiber]") {
  const int workers = GENERATE(1, 2, 4);
  int number = 0;
  std::string moved;
  absl::Status nothing = absl::UnknownError("not joined");
  absl::Status failed;
  int flattened = 0;
  absl::Status flat_error;
  int referred = 1;
  bool same = false;
  on_fiber({.workers = workers}, [&] {
    FiberGroup group({.on_error = OnError::kKeepGoing});
    number = group.spawn([] { return 42; }).join().value_or(0);
    moved = **group.spawn([] { return std::make_unique<std::string>("only moved"); }).join();
    nothing = group.spawn([] {}).join();
    failed = group.spawn([] { return absl::NotFoundError("gone"); }).join();
    flattened = group.spawn([]() -> absl::StatusOr<int> { return 7; }).join().value_or(0);
    flat_error = group.spawn([]() -> absl::StatusOr<int> { return absl::DataLossError("lost"); })
                     .join()
                     .status();
    auto reference = group.spawn([&referred] { return std::ref(referred); }).join();
    same = reference.ok() && &reference->get() == &referred;
    static_cast<void>(group.join());
  });
  CHECK(number == 42);
  CHECK(moved == "only moved");
  CHECK(nothing.ok());
  CHECK(failed == absl::NotFoundError("gone"));
  CHECK(flattened == 7);
  CHECK(flat_error == absl::DataLossError("lost"));
  CHECK(same);
}

TEST_CASE("fiber: closures and results of any size and alignment arrive whole", "[fiber]") {
  std::array<std::uint64_t, 512> large;
  for (std::size_t i = 0; i < large.size(); ++i) large[i] = i * i;
  Aligned aligned;
  for (std::uint64_t i = 0; i < 16; ++i) aligned.words[i] = i;
  bool large_whole = false;
  bool closure_aligned = false;
  bool result_whole = false;
  on_fiber({.workers = 2}, [&] {
    Scope scope;
    auto big = scope.spawn([large] { return large; });
    // The alignment is asked of the closure itself, where it lies while it runs.
    auto placed = scope.spawn(
        [aligned] { return reinterpret_cast<std::uintptr_t>(&aligned) % alignof(Aligned) == 0; });
    auto result = scope.spawn([aligned] { return aligned; });
    large_whole = big.join().value() == large;
    closure_aligned = placed.join().value();
    absl::StatusOr<Aligned> back = result.join();
    result_whole = back.ok() && back->words[15] == 15;
    static_cast<void>(scope.join());
  });
  CHECK(large_whole);
  CHECK(closure_aligned);
  CHECK(result_whole);
}

TEST_CASE("fiber: wait has any number of waiters, and join takes the result once", "[fiber]") {
  const int workers = GENERATE(1, 2, 4);
  std::atomic<int> waited{0};
  bool done_before = true;
  bool done_after = false;
  FiberId id = 0;
  FiberId own_id = 1;
  absl::Status second;
  on_fiber({.workers = workers}, [&] {
    std::atomic<bool> go{false};
    Scope scope;
    auto fiber = scope.spawn([&] {
      yield_until([&go] { return go.load(); });
      return this_fiber::id();
    });
    id = fiber.id();
    done_before = fiber.done();
    for (int i = 0; i < 10; ++i) {
      scope.spawn([&fiber, &waited] { waited += fiber.wait().ok() ? 1 : 0; });
    }
    this_fiber::yield();
    go = true;
    while (waited != 10) this_fiber::yield();
    done_after = fiber.done();
    own_id = fiber.join().value_or(0);
    second = fiber.join().status();
    static_cast<void>(scope.join());
  });
  CHECK(waited == 10);
  CHECK_FALSE(done_before);
  CHECK(done_after);
  CHECK(id == own_id);
  CHECK(second.code() == absl::StatusCode::kFailedPrecondition);
}

TEST_CASE("fiber: cancel ends the waits of one fiber and of no other", "[fiber]") {
  const int workers = GENERATE(1, 2, 4);
  absl::StatusCode cancelled = absl::StatusCode::kOk;
  absl::StatusCode again = absl::StatusCode::kOk;
  absl::StatusCode after_inner_timeout = absl::StatusCode::kOk;
  bool sees_it = false;
  absl::StatusCode other = absl::StatusCode::kOk;
  absl::Status joined;
  on_fiber({.workers = workers}, [&] {
    std::atomic<bool> other_may_end{false};
    std::atomic<bool> timed_out{false};
    std::atomic<bool> started{false};
    Scope scope;
    auto fiber = scope.spawn([&] {
      started = true;
      cancelled = park_until_interrupted();
      again = park_until_interrupted();
      sees_it = this_fiber::cancelled() && !this_fiber::checkpoint().ok();
    });
    auto bystander = scope.spawn([&] {
      yield_until([&] { return other_may_end.load(); });
      other = this_fiber::checkpoint().code();
    });
    auto nested = scope.spawn([&] {
      {
        Timeout inner(absl::ZeroDuration());
        static_cast<void>(park_until_interrupted());
        timed_out = true;
        yield_until([&] { return other_may_end.load(); });
      }
      // The request is the fiber's: leaving an inner level must not take it back.
      after_inner_timeout = park_until_interrupted();
    });
    yield_until([&] { return started.load(); });
    fiber.cancel();
    static_cast<void>(fiber.wait());
    yield_until([&] { return timed_out.load(); });
    nested.cancel();
    other_may_end = true;
    static_cast<void>(bystander.wait());
    joined = scope.join();
  });
  CHECK(cancelled == absl::StatusCode::kCancelled);
  CHECK(again == absl::StatusCode::kCancelled);
  CHECK(sees_it);
  CHECK(after_inner_timeout == absl::StatusCode::kCancelled);
  CHECK(other == absl::StatusCode::kOk);
  CHECK(joined.ok());
}

TEST_CASE("fiber: one that is cancelled before it starts ends unrun, its closure destroyed",
          "[fiber]") {
  Counted::reset();
  bool ran = false;
  absl::StatusCode code = absl::StatusCode::kOk;
  on_fiber({.workers = 1}, [&] {
    Scope scope;
    auto fiber = scope.spawn([&ran, payload = Counted()] { ran = payload.real; });
    fiber.cancel();
    code = fiber.join().code();
    static_cast<void>(scope.join());
  });
  CHECK_FALSE(ran);
  CHECK(code == absl::StatusCode::kCancelled);
  CHECK(Counted::alive == 0);
  CHECK(Counted::destroyed == 1);
}

TEST_CASE("fiber: a spawn into a cancelled group ends unrun with kCancelled", "[fiber][I11]") {
  Counted::reset();
  bool ran = false;
  absl::StatusCode code = absl::StatusCode::kOk;
  absl::Status joined = absl::UnknownError("");
  on_fiber({.workers = 2}, [&] {
    FiberGroup group;
    group.cancel();
    auto fiber = group.spawn([&ran, payload = Counted()] { ran = payload.real; });
    static_cast<void>(fiber.wait());
    code = fiber.join().code();
    joined = group.join();
  });
  CHECK_FALSE(ran);
  CHECK(code == absl::StatusCode::kCancelled);
  CHECK(joined.ok());
  CHECK(Counted::alive == 0);
  CHECK(Counted::destroyed == 1);
}

TEST_CASE("fiber: a dropped handle destroys the result once, before or after the end", "[fiber]") {
  const int workers = GENERATE(1, 2, 4);
  Counted::reset();
  on_fiber({.workers = workers}, [] {
    std::atomic<int> ready{0};
    std::atomic<bool> go{false};
    Scope scope;
    for (int i = 0; i < 100; ++i) {
      auto before = scope.spawn([&] {
        ++ready;
        yield_until([&go] { return go.load(); });
        return Counted();
      });
    }
    yield_until([&ready] { return ready == 100; });
    go = true;
    for (int i = 0; i < 100; ++i) {
      auto after = scope.spawn([] { return Counted(); });
      static_cast<void>(after.wait());
    }
    // While it ends: the handle goes at any moment of the exit.
    for (int i = 0; i < 200; ++i) {
      auto meanwhile = scope.spawn([] { return Counted(); });
      for (int turns = i % 4; turns > 0; --turns) this_fiber::yield();
    }
    auto joined = scope.spawn([] { return Counted(); });
    static_cast<void>(joined.join());
    static_cast<void>(scope.join());
  });
  CHECK(Counted::alive == 0);
  CHECK(Counted::destroyed == 401);
}

TEST_CASE("fiber: handles outlive their scope and their runtime", "[fiber]") {
  Counted::reset();
  std::vector<Fiber<std::unique_ptr<int>>> kept;
  std::vector<Fiber<Counted>> never_joined;
  std::vector<Fiber<void>> refused;
  on_fiber({.workers = 2}, [&] {
    FiberGroup group;
    kept.push_back(group.spawn([] { return std::make_unique<int>(9); }));
    never_joined.push_back(group.spawn([] { return Counted(); }));
    static_cast<void>(group.join());
    group.cancel();
    refused.push_back(group.spawn([] {}));
  });
  CHECK(kept[0].done());
  CHECK(kept[0].id() != 0);
  kept[0].cancel();
  CHECK(kept[0].wait().ok());
  CHECK(**kept[0].join() == 9);
  CHECK(refused[0].join().code() == absl::StatusCode::kCancelled);
  CHECK(Counted::alive == 1);
  never_joined.clear();
  CHECK(Counted::alive == 0);
}

TEST_CASE("fiber: ids are unique, and 0 outside fibers", "[fiber]") {
  std::vector<FiberId> ids(1000);
  bool own = false;
  on_fiber({.workers = 4}, [&] {
    std::vector<Fiber<void>> fibers;
    std::vector<FiberId> inside(ids.size());
    Scope scope;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      fibers.push_back(scope.spawn([&inside, i] { inside[i] = this_fiber::id(); }));
      ids[i] = fibers.back().id();
    }
    static_cast<void>(scope.join());
    own = inside == ids;
  });
  CHECK(own);
  CHECK(std::set<FiberId>(ids.begin(), ids.end()).size() == ids.size());
  CHECK(this_fiber::id() == 0);
}

TEST_CASE("fiber: outside a fiber this_fiber does nothing and says so", "[fiber]") {
  this_fiber::yield();
  this_fiber::maybe_yield();
  CHECK(this_fiber::checkpoint().ok());
  CHECK_FALSE(this_fiber::cancelled());
  CHECK(this_fiber::stack_remaining() == 0);
  CHECK(sleep_for(absl::ZeroDuration()).code() == absl::StatusCode::kFailedPrecondition);
}

TEST_CASE("fiber: without a runtime a group's fibers end unrun with kFailedPrecondition",
          "[fiber]") {
  bool ran = false;
  FiberGroup group;
  auto fiber = group.spawn([&ran] { ran = true; });
  CHECK(fiber.done());
  CHECK(fiber.wait().code() == absl::StatusCode::kFailedPrecondition);
  CHECK(fiber.join().code() == absl::StatusCode::kFailedPrecondition);
  CHECK(group.join().ok());
  CHECK_FALSE(ran);
}
