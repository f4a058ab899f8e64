// fork() at any moment of a busy runtime, from a thread and from fibers: the child may exec or _exit and has no
// runtime; the parent's goes on as if nothing had happened.

#include <weft/fiber.h>
#include <weft/net.h>
#include <weft/runtime.h>
#include <weft/scope.h>
#include <weft/time.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "runtime/sched/core.h"
#include "tests/death.h"
#include "tests/maps.h"
#include "tests/support/on_fiber.h"
#include "tests/support/random.h"
#include "tests/support/sanitizer.h"
#include "tests/support/watchdog.h"

using namespace weft;

namespace {

constexpr bool kSanitized = test::kAddressSanitizer || test::kThreadSanitizer;
int forks() { return std::getenv("WEFT_SOAK") != nullptr ? 1000 : kSanitized ? 40 : 200; }

// What a child finds; 0 when it is as it should be. Nothing here allocates or takes a lock.
int look_around(const char* guard) {
  if (this_fiber::id() != 0 || this_fiber::stack_remaining() != 0) return 1;
  this_fiber::yield();  // with the parent's worker this would run the parent's fibers
  if (draining()) return 2;
  if (!test::is_unreadable(guard)) return 3;
  return 0;
}

// Whether the child of a fork from here ends as it says. Call from: any thread or fiber.
bool child_is_well(const char* guard, bool execs) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);  // a child that hangs
    const int wrong = look_around(guard);
    if (wrong == 0 && execs) execl("/bin/true", "true", nullptr);
    _exit(wrong);
  }
  int status = -1;
  return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

// The lowest byte of a fiber's own stack belongs to its page; the one below to the guard.
[[gnu::noinline]] const char* guard_below() {
  const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  return reinterpret_cast<const char*>((here - this_fiber::stack_remaining()) / 4096 * 4096 - 1);
}

// Fibers that use everything that a worker has: queues, timers, the ring.
class Load {
 public:
  explicit Load(Runtime& runtime) : group_(runtime) {
    for (int i = 0; i < 16; ++i) {
      group_.spawn([this, i] { run(static_cast<unsigned>(i)); });
    }
  }
  std::uint64_t turns() const { return turns_; }
  bool end() {
    over_ = true;
    return group_.join().ok();
  }

 private:
  void run(unsigned number) {
    test::Random random(number);
    while (!over_) {
      ++turns_;
      Scope scope;
      scope.spawn([] { this_fiber::yield(); });
      if (random.one_in(8)) static_cast<void>(sleep_for(absl::Microseconds(50)));
      if (random.one_in(16)) {
        auto listener = TcpListener::bind("127.0.0.1:0");
        if (listener.ok()) {
          const Timeout brief(absl::Microseconds(50));
          listener->accept().IgnoreError();
        }
      }
      static_cast<void>(scope.join());
      this_fiber::yield();
    }
  }

  std::atomic<bool> over_{false};
  std::atomic<std::uint64_t> turns_{0};
  FiberGroup group_;  // last: its fibers use the above
};

std::unique_ptr<Runtime> started(int workers) {
  auto runtime = Runtime::start({.workers = workers, .handle_signals = false});
  REQUIRE(runtime.ok());
  return *std::move(runtime);
}

}  // namespace

TEST_CASE("fork: children exec or _exit at any moment, and the parent runs on", "[process][I8]") {
  const int workers = GENERATE(1, 2, 4);
  auto runtime = started(workers);
  Load load(*runtime);
  std::atomic<int> tried{0};
  test::Watchdog watchdog(*sched::core_of(*runtime),
                          [&] { return load.turns() + static_cast<unsigned>(tried); });
  const char* guard = nullptr;
  CHECK(runtime->block_on([&guard] { guard = guard_below(); }).ok());

  int good = 0;
  const auto moved_on = [&](std::uint64_t since) { return load.turns() > since; };
  for (int i = 0; i < forks(); ++i, ++tried) {
    const std::uint64_t before = load.turns();
    good += child_is_well(guard, i % 4 == 0) ? 1 : 0;
    while (!moved_on(before)) sched_yield();
  }
  CHECK(good == forks());

  std::atomic<int> good_of_fibers{0};
  FiberGroup forking(*runtime);
  for (int i = 0; i < forks() / 10; ++i) {
    forking.spawn([&, i] {
      for (int yields = i % 7; yields > 0; --yields) this_fiber::yield();
      good_of_fibers += child_is_well(guard, i % 4 == 0) ? 1 : 0;
      ++tried;
    });
  }
  CHECK(forking.join().ok());
  CHECK(good_of_fibers == forks() / 10);
  CHECK(load.end());
  CHECK(runtime->stop().ok());
}

TEST_CASE("fork: a child starts no runtime and shares no ring", "[process][I8]") {
  auto runtime = started(2);
  const auto rings = [] {
    int count = 0;
    test::for_each_mapping([&](auto, auto, const std::string& line) {
      count += line.find("[io_uring]") != line.npos ? 1 : 0;
    });
    return count;
  };
  CHECK(rings() > 0);
  const auto child = test::death_of([&] {
    if (rings() != 0) _exit(1);
    if (Runtime::start({}).status().code() != absl::StatusCode::kFailedPrecondition) _exit(2);
    exit(0);  // not allowed, and harmless: nobody waits for workers that are not there
  });
  CHECK(child.signal == 0);
  CHECK(child.status == 0);
  CHECK(runtime->block_on([] { return 1; }).value_or(0) == 1);
}

TEST_CASE("fork: a child that spawns is told that it must not", "[process][I8]") {
  auto runtime = started(1);
  const auto child = test::death_of([&] { runtime->root().spawn([] {}); });
  CHECK(child.signal == SIGABRT);
  CHECK(child.errors.find("a forked child may only exec or _exit") != child.errors.npos);
}
