// Random trees of fibers that spawn, yield, sleep, join, cancel and drop handles, under many seeds and worker
// counts: every fiber that was spawned runs once and ends once. [C1]
//
// Each fiber has an index and two counters: how often it ran, and how often its closure was destroyed. A
// run without cancellations must have run them all; with cancellations a fiber may end unrun, and then its
// handle says kCancelled.

#include <weft/fiber.h>
#include <weft/runtime.h>
#include <weft/scope.h>
#include <weft/time.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include <sched.h>

#include <catch2/catch.hpp>

#include "runtime/sched/core.h"
#include "tests/support/on_fiber.h"
#include "tests/support/random.h"
#include "tests/support/sanitizer.h"
#include "tests/support/watchdog.h"

using namespace weft;

namespace {

constexpr bool kSanitized = test::kAddressSanitizer || test::kThreadSanitizer;
constexpr int kWorkerCounts[] = {1, 2, 3, 4, 8};

bool soak() { return std::getenv("WEFT_SOAK") != nullptr; }
int seeds() { return soak() ? 64 : 8; }
// 10 million operations over 64 seeds are 31,250 for each seed and worker count.
std::uint32_t fibers_each() { return kSanitized ? 800 : 10'000; }

// relaxed, here and below: the counters are read after the end of the runtime, but for the watchdog's look.
struct Tally {
  explicit Tally(std::uint32_t fibers) : ran(fibers), destroyed(fibers) {}

  std::atomic<std::uint32_t> spawned{0};
  std::atomic<std::uint64_t> operations{0};
  std::atomic<std::uint64_t> migrations{0};
  std::atomic<std::uint64_t> said_cancelled_but_ran{0};
  std::vector<std::atomic<std::uint8_t>> ran;
  std::vector<std::atomic<std::uint8_t>> destroyed;
};

// The identity of one fiber, part of its closure: says when it goes.
class Ticket {
 public:
  Ticket(Tally& tally, std::uint32_t index) : tally_(&tally), index_(index) {}
  Ticket(Ticket&& other) noexcept
      : tally_(std::exchange(other.tally_, nullptr)), index_(other.index_) {}
  Ticket& operator=(Ticket&&) = delete;
  ~Ticket() {
    if (tally_ != nullptr) tally_->destroyed[index_].fetch_add(1, std::memory_order_relaxed);
  }
  void note_run() const { tally_->ran[index_].fetch_add(1, std::memory_order_relaxed); }
  std::uint32_t index() const { return index_; }

 private:
  Tally* tally_;
  std::uint32_t index_;
};

class Storm {
 public:
  Storm(std::uint64_t seed, bool cancels, Tally& tally)
      : seed_(seed), cancels_(cancels), tally_(tally) {}

  // What each fiber does.
  void grow(const Ticket& ticket, int depth) {
    ticket.note_run();
    test::Random random(seed_ * 1'000'003 + ticket.index());
    Seen seen{tally_, test::kernel_thread()};
    Scope scope({.on_error = OnError::kKeepGoing});
    std::deque<Child> children;
    const auto steps = 2 + random.below(8);
    for (std::uint64_t step = 0; step < steps; ++step) {
      one_step(random, scope, children, depth);
      seen.look();
    }
    if (!random.one_in(4) || !cancels_) static_cast<void>(scope.join());
    while (!children.empty()) settle(children);
  }

  std::optional<Ticket> next_ticket() {
    const std::uint32_t index = tally_.spawned.fetch_add(1, std::memory_order_relaxed);
    if (index < tally_.ran.size()) return Ticket(tally_, index);
    tally_.spawned.fetch_sub(1, std::memory_order_relaxed);
    return std::nullopt;
  }

 private:
  struct Child {
    Fiber<int> fiber;
    std::uint32_t index;
  };

  // Notes when the fiber finds itself on another kernel thread.
  struct Seen {
    Tally& tally;
    long thread;
    void look() {
      const long now = test::kernel_thread();
      if (now != thread) tally.migrations.fetch_add(1, std::memory_order_relaxed);
      thread = now;
    }
  };

  void one_step(test::Random& random, Scope& scope, std::deque<Child>& children, int depth) {
    tally_.operations.fetch_add(1, std::memory_order_relaxed);
    switch (random.below(10)) {
      case 0:
      case 1:
        return this_fiber::yield();
      case 2:
        return sleep_for(absl::Microseconds(random.below(100))).IgnoreError();
      case 3:
        if (!children.empty()) settle(children);
        return;
      case 4:
        if (!children.empty() && cancels_) children[random.below(children.size())].fiber.cancel();
        return;
      case 5:
        return this_fiber::checkpoint().IgnoreError();
      case 6:  // a handle that is dropped at once
        if (auto ticket = next_ticket())
          spawn(random.one_in(3) ? background() : scope, *ticket, depth);
        return;
      default:
        if (auto ticket = next_ticket()) {
          const std::uint32_t index = ticket->index();
          children.push_back({spawn(scope, *ticket, depth), index});
        }
    }
  }

  Fiber<int> spawn(FiberGroup& group, Ticket& ticket, int depth) {
    return group.spawn([this, depth, mine = std::move(ticket)] {
      if (depth < 12) {
        grow(mine, depth + 1);
      } else {
        mine.note_run();
      }
      return static_cast<int>(mine.index());
    });
  }

  // Joins the oldest child; when we are interrupted ourselves, lets it go.
  void settle(std::deque<Child>& children) {
    Child child = std::move(children.front());
    children.pop_front();
    const absl::StatusOr<int> joined = child.fiber.join();
    const bool ran = tally_.ran[child.index].load(std::memory_order_relaxed) != 0;
    if (child.fiber.done() && !joined.ok() && ran && !this_fiber::cancelled()) {
      tally_.said_cancelled_but_ran.fetch_add(1, std::memory_order_relaxed);
    }
  }

  const std::uint64_t seed_;
  const bool cancels_;
  Tally& tally_;
};

struct Totals {
  std::uint64_t spawned = 0, operations = 0, lost = 0, twice = 0, not_destroyed = 0, unrun = 0;
  std::uint64_t steals = 0, migrations = 0, wrongly_cancelled = 0;
};

void one_run(std::uint64_t seed, int workers, bool cancels, Totals& totals) {
  Tally tally(fibers_each());
  auto started = Runtime::start({.workers = workers, .handle_signals = false});
  REQUIRE(started.ok());
  Runtime& runtime = **started;
  Storm storm(seed, cancels, tally);
  {
    test::Watchdog watchdog(*sched::core_of(runtime), [&] {
      return tally.operations.load(std::memory_order_relaxed) + runtime.metrics().switches;
    });
    // Fiber after fiber from here, until all indices are used up.
    const absl::Status body = runtime.block_on([&] {
      while (auto ticket = storm.next_ticket()) {
        Scope scope;
        scope.spawn([&storm, mine = std::move(*ticket)] { storm.grow(mine, 0); });
        static_cast<void>(scope.join());
      }
    });
    CHECK(body.ok());
    CHECK(runtime.root().join().ok());
  }
  const Metrics metrics = runtime.metrics();
  CHECK(runtime.stop().ok());

  CHECK(metrics.fibers == 0);
  CHECK(metrics.spawned == tally.spawned + 1);  // and the body
  totals.spawned += tally.spawned;
  totals.operations += tally.operations;
  totals.steals += metrics.steals;
  totals.migrations += tally.migrations;
  totals.wrongly_cancelled += tally.said_cancelled_but_ran;
  for (std::uint32_t i = 0; i < tally.spawned; ++i) {
    totals.not_destroyed += tally.destroyed[i] != 1 ? 1 : 0;
    totals.twice += tally.ran[i] > 1 ? 1 : 0;
    totals.unrun += tally.ran[i] == 0 ? 1 : 0;
    totals.lost += tally.ran[i] == 0 && !cancels ? 1 : 0;
  }
}

void many_runs(int workers, int seeds, std::uint64_t first_seed) {
  Totals totals;
  for (int i = 0; i < seeds; ++i) {
    one_run(first_seed + static_cast<std::uint64_t>(i), workers, i % 2 == 1, totals);
  }
  std::printf("workers=%d spawned=%llu operations=%llu unrun=%llu steals=%llu migrations=%llu\n",
              workers, static_cast<unsigned long long>(totals.spawned),
              static_cast<unsigned long long>(totals.operations),
              static_cast<unsigned long long>(totals.unrun),
              static_cast<unsigned long long>(totals.steals),
              static_cast<unsigned long long>(totals.migrations));
  CHECK(totals.spawned == static_cast<std::uint64_t>(seeds) * fibers_each());
  CHECK(totals.lost == 0);
  CHECK(totals.twice == 0);
  CHECK(totals.not_destroyed == 0);
  CHECK(totals.wrongly_cancelled == 0);
  if (workers > 1) {
    CHECK(totals.steals > 0);
    CHECK(totals.migrations > 0);
  } else {
    CHECK(totals.migrations == 0);
  }
}

// Threads beside the workers, until the end of the scope.
class Neighbours {
 public:
  // Calls `once()` again and again on each thread, after `prepare()`.
  template <class Prepare, class Once>
  Neighbours(int count, Prepare prepare, Once once) {
    for (int i = 0; i < count; ++i) {
      threads_.emplace_back([this, prepare, once] {
        prepare();
        while (!over_) once();
      });
    }
  }
  ~Neighbours() {
    over_ = true;
    for (std::thread& thread : threads_) thread.join();
  }
  Neighbours(const Neighbours&) = delete;
  Neighbours& operator=(const Neighbours&) = delete;

 private:
  std::atomic<bool> over_{false};
  std::vector<std::thread> threads_;
};

// The calling thread, and those that it starts meanwhile, on one processor.
class OnOneCpu {
 public:
  OnOneCpu() {
    sched_getaffinity(0, sizeof before_, &before_);
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    pinned_ = sched_setaffinity(0, sizeof one, &one) == 0;
  }
  ~OnOneCpu() { sched_setaffinity(0, sizeof before_, &before_); }
  OnOneCpu(const OnOneCpu&) = delete;
  OnOneCpu& operator=(const OnOneCpu&) = delete;
  bool pinned() const { return pinned_; }

 private:
  cpu_set_t before_;
  bool pinned_ = false;
};

}  // namespace

TEST_CASE("scheduler: random trees of fibers lose none and run none twice", "[scheduler][C1]") {
  for (const int workers : kWorkerCounts) many_runs(workers, seeds(), test::seed());
}

TEST_CASE("scheduler: nor do they with all workers on one processor", "[scheduler][C13]") {
  const int workers = GENERATE(1, 2, 8);
  const OnOneCpu one;
  REQUIRE(one.pinned());
  many_runs(workers, seeds() / 4, test::seed());
}

TEST_CASE("scheduler: nor beside threads of the lowest priority", "[scheduler][C13]") {
  const Neighbours neighbours(
      2,
      [] {
        const sched_param parameters{};
        sched_setscheduler(0, SCHED_IDLE, &parameters);
      },
      [] {});
  many_runs(4, seeds() / 4, test::seed());
}

TEST_CASE("scheduler: nor beside threads that take processors away", "[scheduler][C14]") {
  const Neighbours neighbours(
      4, [] {}, [] { sched_yield(); });
  many_runs(4, seeds() / 4, test::seed());
}
