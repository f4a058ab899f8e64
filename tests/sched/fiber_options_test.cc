// SpawnOptions: stack sizes, names, pinning and the floating-point environment; and what becomes of a
// fiber for which there is no stack.

#include <weft/fiber.h>
#include <weft/runtime.h>
#include <weft/scope.h>

#include <atomic>
#include <cerrno>
#include <cfenv>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <catch2/catch.hpp>

#include "runtime/os/system.h"
#include "runtime/sched/core.h"
#include "runtime/sched/worker.h"
#include "tests/support/on_fiber.h"

using namespace weft;
using test::on_fiber;
using test::yield_until;

namespace {

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

std::string dump() { return sched::current_worker()->core().dump_fibers(); }

}  // namespace

TEST_CASE("fiber: a bad stack size ends it unrun with kInvalidArgument", "[fiber]") {
  const std::size_t bytes =
      GENERATE(1, 4096, 8 << 10, 24 << 10, (64 << 10) + 1, std::size_t{2} << 30);
  std::atomic<bool> ran{false};
  absl::Status joined;
  absl::Status group_joined;
  on_fiber({.workers = 2}, [&] {
    FiberGroup group;
    auto fiber = group.spawn([&ran] { ran = true; }, {.stack_size = bytes});
    joined = fiber.join();
    group_joined = group.join();
  });
  CHECK_FALSE(ran);
  CHECK(joined.code() == absl::StatusCode::kInvalidArgument);
  CHECK(contains(std::string(joined.message()), std::to_string(bytes)));
  CHECK(group_joined == joined);
}

TEST_CASE("fiber: a stack counts its guard, and stack_remaining tells what is left", "[fiber]") {
  const std::size_t bytes = GENERATE(32 << 10, 64 << 10, 1 << 20);
  std::size_t remaining = 0;
  std::size_t deeper = 0;
  on_fiber({.workers = 1}, [&] {
    Scope scope;
    scope.spawn(
        [&] {
          remaining = this_fiber::stack_remaining();
          // A frame of 4 KiB between the two looks.
          [&]() __attribute__((noinline)) {
            char frame[4096];
            asm volatile("" : : "r"(frame) : "memory");
            deeper = this_fiber::stack_remaining();
            asm volatile("" : : "r"(frame) : "memory");
          }
          ();
        },
        {.stack_size = bytes});
    static_cast<void>(scope.join());
  });
  CHECK(remaining < bytes - std::min<std::size_t>(bytes / 4, 64 << 10));
  CHECK(remaining > bytes / 4);
  CHECK(deeper <= remaining - 4096);
}

TEST_CASE("fiber: without memory for a stack it ends unrun, and running fibers go on",
          "[fiber][G4]") {
  using os::system::Call;
  struct Fault {
    Call call;
    int advice;
    const char* named;
  };
  const Fault fault = GENERATE(Fault{Call::kMmap, -1, "vm.max_map_count"},
                               Fault{Call::kMadvise, 102, "memory limit"});
  constexpr int kFibers = 300;
  std::atomic<int> started{0};
  std::atomic<int> ended{0};
  int refused = 0;
  int other_errors = 0;
  std::string message;
  bool as_before = false;
  on_fiber({.workers = 1}, [&] {
    std::atomic<bool> go{false};
    FiberGroup group({.on_error = OnError::kKeepGoing});
    std::vector<Fiber<void>> fibers;
    auto body = [&] {
      ++started;
      yield_until([&go] { return go.load(); });
      ++ended;
    };
    fibers.push_back(group.spawn(body));
    yield_until([&started] { return started == 1; });
    os::system::arm_fault(fault.call, 0, ENOMEM, 1'000'000, fault.advice);
    for (int i = 1; i < kFibers; ++i) fibers.push_back(group.spawn(body));
    // All have been tried when the last one, which is the oldest but for the first, has had its turn.
    yield_until([&] {
      int done = started;
      for (Fiber<void>& fiber : fibers) done += fiber.done() ? 1 : 0;
      return done == kFibers;
    });
    os::system::disarm_faults();
    go = true;
    for (Fiber<void>& fiber : fibers) {
      const absl::Status status = fiber.join();
      if (status.ok()) continue;
      ++(status.code() == absl::StatusCode::kResourceExhausted ? refused : other_errors);
      message = std::string(status.message());
    }
    static_cast<void>(group.join());
    as_before = group.spawn([] { return true; }).join().value_or(false);
  });
  CHECK(refused > 0);
  CHECK(started + refused == kFibers);
  CHECK(ended == started);
  CHECK(other_errors == 0);
  CHECK(contains(message, fault.named));
  CHECK(as_before);
}

TEST_CASE("fiber: reports name it, its name cut to 31 bytes, and its spawn site", "[fiber]") {
  std::string text;
  on_fiber({.workers = 1}, [&] {
    Scope scope;
    scope.spawn([] {}, {.name = "parser"});
    const std::string name = "a-name-that-is-longer-than-thirty-one-bytes";
    scope.spawn([] {}, {.name = name});
    scope.spawn([] {});
    text = dump();
    static_cast<void>(scope.join());
  });
  CHECK(contains(text, " \"parser\" spawned at "));
  CHECK(contains(text, "\"a-name-that-is-longer-than-thir\""));
  CHECK(contains(text, "fiber_options_test.cc:"));
}

TEST_CASE("fiber: a pinned one stays on the worker that first runs it", "[fiber]") {
  std::atomic<int> moved{0};
  std::atomic<int> free_ones_moved{0};
  on_fiber({.workers = 3, .shuffle_wakes = true}, [&] {
    // Yields, sleeps and joins: each way to be made ready again.
    auto wander = [](std::atomic<int>* count) {
      const long home = test::kernel_thread();
      for (int i = 0; i < 50; ++i) {
        Scope inner;
        auto child = inner.spawn([] { this_fiber::yield(); });
        this_fiber::yield();
        static_cast<void>(child.join());
        static_cast<void>(sleep_for(absl::Microseconds(50)));
        static_cast<void>(inner.join());
        if (test::kernel_thread() != home) ++*count;
      }
    };
    Scope scope;
    for (int i = 0; i < 6; ++i) {
      scope.spawn([wander, &moved] { wander(&moved); }, {.pinned = true});
      scope.spawn([wander, &free_ones_moved] { wander(&free_ones_moved); });
    }
    static_cast<void>(scope.join());
  });
  CHECK(moved == 0);
  CHECK(free_ones_moved > 0);
}

TEST_CASE("fiber: preserve_fp_control keeps a rounding mode that others never see", "[fiber][A2]") {
  const bool shuffle = GENERATE(false, true);
  std::atomic<int> kept{0};
  std::atomic<int> lost{0};
  std::atomic<int> leaked{0};
  on_fiber({.workers = 2, .shuffle_wakes = shuffle}, [&] {
    Scope scope;
    for (int mode : {FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO}) {
      scope.spawn(
          [&, mode] {
            std::fesetround(mode);
            for (int i = 0; i < 100; ++i) {
              static_cast<void>(sleep_for(absl::Microseconds(1)));
              ++(std::fegetround() == mode ? kept : lost);
            }
            // Ends with the mode set: the next fiber must not inherit it.
          },
          {.preserve_fp_control = true});
    }
    for (int i = 0; i < 3; ++i) {
      scope.spawn([&] {
        for (int turn = 0; turn < 100; ++turn) {
          this_fiber::yield();
          if (std::fegetround() != FE_TONEAREST) ++leaked;
        }
      });
    }
    static_cast<void>(scope.join());
  });
  CHECK(kept == 300);
  CHECK(lost == 0);
  CHECK(leaked == 0);
}
