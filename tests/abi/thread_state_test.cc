// What C and C++ keep per kernel thread, seen by a fiber that changes kernel threads: errno, the canary of
// the stack protector, where a backtrace ends, and what is destroyed with a thread. Compiled with
// -fstack-protector-all.
#include <weft/runtime.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

#include <unwind.h>

#include <catch2/catch.hpp>

#include "arch/x86_64/switch.h"
#include "tests/abi/migration.h"
#include "tests/support/random.h"
#include "tests/support/thread_identity.h"

namespace weft::test {
namespace {

int long_or_short(int quick) { return std::getenv("WEFT_SOAK") != nullptr ? 50 * quick : quick; }

// Functions of their own: a compiler may take the address of errno for constant within one function.
[[gnu::noinline]] void set_errno(int value) {
  errno = value;
  asm volatile("");
}
[[gnu::noinline]] int get_errno() {
  asm volatile("");
  return errno;
}

TEST_CASE("thread state: errno is the fiber's, over parks and migrations", "[abi][H1]") {
  Random random(seed());
  Migrations migrations;
  const int status = run_fibers(16, random, [&migrations](Random& own) {
    migrations.expect(get_errno() == 0, "a new fiber finds an errno that is not 0");
    for (int i = 0; i < long_or_short(500); ++i) {
      const int value = static_cast<int>(own.below(1'000'000));
      set_errno(value);
      migrations.park(own);
      migrations.expect(get_errno() == value, "errno changed over a park");
    }
  });
  CHECK(status == 0);
  CHECK(migrations.wrong() == "");
  CHECK(migrations.seen() > 100);
}

// The frame has a canary, compared on the way out, when this runs on another kernel thread.
[[gnu::noinline]] std::uint64_t park_in_protected_frame(Random& random, Migrations& migrations,
                                                        int levels) {
  char text[64];
  std::memset(text, levels, sizeof text);
  asm volatile("" : : "r"(text) : "memory");
  migrations.park(random);
  const std::uint64_t below =
      levels > 1 ? park_in_protected_frame(random, migrations, levels - 1) : 0;
  migrations.expect(text[random.below(sizeof text)] == levels, "a frame changed over a park");
  return below + static_cast<unsigned char>(text[0]);
}

TEST_CASE("thread state: protected frames survive migration", "[abi][H7]") {
  Random random(seed());
  const ThreadSecrets of_main = read_secrets();
  Migrations migrations;
  const int status = run_fibers(16, random, [&](Random& own) {
    for (int i = 0; i < long_or_short(100); ++i) {
      const auto levels = static_cast<int>(1 + own.below(8));
      const auto sum = static_cast<std::uint64_t>(levels * (levels + 1) / 2);
      migrations.expect(park_in_protected_frame(own, migrations, levels) == sum, "a sum is wrong");
      migrations.expect(read_secrets().canary == of_main.canary, "the canary is not main's");
    }
  });
  CHECK(status == 0);
  CHECK(migrations.wrong() == "");
  CHECK(migrations.seen() > 100);
}

// ---- Backtraces of a running fiber

struct Unwound {
  int depth = 0;
  bool ends_in_first_frame = false;
};

[[gnu::noinline]] Unwound unwind() {
  Unwound unwound;
  _Unwind_Backtrace(
      [](_Unwind_Context* context, void* argument) {
        const auto address = static_cast<std::uintptr_t>(_Unwind_GetIP(context));
        if (address == 0) return _URC_NO_REASON;  // the end itself is shown as a frame
        auto& so_far = *static_cast<Unwound*>(argument);
        const auto first = reinterpret_cast<std::uintptr_t>(&weft_entry);
        so_far.depth += 1;
        so_far.ends_in_first_frame = address >= first && address < first + 16;
        return _URC_NO_REASON;
      },
      &unwound);
  return unwound;
}

[[gnu::noinline]] Unwound descend(int levels) {
  const Unwound unwound = levels == 1 ? unwind() : descend(levels - 1);
  asm volatile("");
  return unwound;
}

TEST_CASE("thread state: a fiber's backtrace is exact and ends in weft_entry", "[abi][A7]") {
  Random random(seed());
  Migrations migrations;
  const int status = run_fibers(4, random, [&migrations](Random& own) {
    const int with_one = descend(1).depth;
    for (int levels = 1; levels <= 500; ++levels) {
      const Unwound unwound = descend(levels);
      migrations.expect(unwound.depth == with_one + levels - 1, "a backtrace misses frames");
      migrations.expect(unwound.ends_in_first_frame, "a backtrace does not end in weft_entry");
      if (levels % 20 == 0) migrations.park(own);
    }
  });
  CHECK(status == 0);
  CHECK(migrations.wrong() == "");
}

// ---- What has a destructor

struct OfThread {
  OfThread() { made.fetch_add(1, std::memory_order_relaxed); }
  ~OfThread() { destroyed.fetch_add(1, std::memory_order_relaxed); }
  OfThread(const OfThread&) = delete;
  OfThread& operator=(const OfThread&) = delete;

  int touched = 0;
  // relaxed: read when the workers have been joined.
  static inline std::atomic<int> made{0};
  static inline std::atomic<int> destroyed{0};
};
thread_local OfThread of_thread;

[[gnu::noinline]] void touch_of_thread() { ++of_thread.touched; }

TEST_CASE("thread state: a thread_local of a worker is destroyed when the worker ends",
          "[abi][H6]") {
  static constexpr int kWorkers = 3;
  OfThread::made = 0;
  OfThread::destroyed = 0;
  const int status = run(
      [&] {
        std::atomic<int> standing{0};
        Scope scope;
        for (int i = 0; i < kWorkers; ++i) {
          scope.spawn([&standing] {
            touch_of_thread();
            // Blocks its worker until each of the others has one of these, and touches its own, too.
            for (++standing; standing != kWorkers;) std::this_thread::yield();
            touch_of_thread();
          });
        }
        return scope.join();
      },
      {.workers = kWorkers, .handle_signals = false});
  CHECK(status == 0);
  CHECK(OfThread::made == kWorkers);
  CHECK(OfThread::destroyed == kWorkers);
}

}  // namespace
}  // namespace weft::test
