// Timers under workers that arm, disarm, fire and move fibers all at once: each fires or is cancelled, never
// both, and who owns one may destroy it when it fires.

#include <weft/fiber.h>
#include <weft/runtime.h>
#include <weft/scope.h>
#include <weft/time.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include <catch2/catch.hpp>

#include "runtime/os/clock.h"
#include "runtime/sched/core.h"
#include "runtime/sched/timers.h"
#include "runtime/sched/worker.h"
#include "tests/support/on_fiber.h"
#include "tests/support/proc.h"
#include "tests/support/random.h"
#include "tests/support/sanitizer.h"
#include "tests/support/watchdog.h"

using namespace weft;

namespace {

constexpr bool kSanitized = test::kAddressSanitizer || test::kThreadSanitizer;

bool soak() { return std::getenv("WEFT_SOAK") != nullptr; }

void arm(sched::Timer& timer, std::int64_t length_ns) {
  sched::WorkerSection section;
  const std::int64_t now_ns = os::now_ns();
  sched::current_worker()->timers().arm(timer, now_ns + length_ns, now_ns);
}

// Counts how often it fired. relaxed: who disarms it has taken the lock under which it fires.
struct Shot : sched::Timer {
  Shot() : Timer(&on_fire) {}
  static void on_fire(Timer& timer, std::int64_t, sched::WakeBatch&) {
    static_cast<Shot&>(timer).fired.fetch_add(1, std::memory_order_relaxed);
  }
  std::uint32_t times() const { return fired.load(std::memory_order_relaxed); }

  std::atomic<std::uint32_t> fired{0};
  bool armed = false;
};

struct Totals {
  std::atomic<std::uint64_t> armed{0}, fired{0}, cancelled{0}, wrong{0};
};

// What one fiber does with its timers: arms one, or ends one that it had armed, by force or by waiting.
class Marksman {
 public:
  Marksman(std::uint64_t seed, Totals& totals) : random_(seed), totals_(totals) {}
  ~Marksman() {
    for (Shot& shot : shots_) shot.disarm();
  }
  Marksman(const Marksman&) = delete;
  Marksman& operator=(const Marksman&) = delete;

  void step() {
    Shot& shot = shots_[random_.below(shots_.size())];
    if (!shot.armed) {
      if (shot.times() != before_[index_of(shot)]) ++totals_.wrong;  // fired after its end
      shot.fired.store(0, std::memory_order_relaxed);
      shot.armed = true;
      ++totals_.armed;
      arm(shot, static_cast<std::int64_t>(random_.below(100'000)));
      return;
    }
    if (random_.one_in(2)) {
      test::yield_until([&] { return shot.times() != 0; });
    }
    shot.disarm();
    const std::uint32_t times = shot.times();
    if (times > 1) ++totals_.wrong;
    ++(times == 0 ? totals_.cancelled : totals_.fired);
    before_[index_of(shot)] = times;
    shot.armed = false;
  }

 private:
  std::size_t index_of(const Shot& shot) const {
    return static_cast<std::size_t>(&shot - shots_.data());
  }

  test::Random random_;
  Totals& totals_;
  std::array<Shot, 8> shots_;
  std::array<std::uint32_t, 8> before_{};  // how often each had fired when it was ended last
};

// Owns itself until it fires.
struct Ephemeral : sched::Timer {
  explicit Ephemeral(std::atomic<int>& counter) : Timer(&on_fire), destroyed(counter) {}
  ~Ephemeral() { ++destroyed; }
  Ephemeral(const Ephemeral&) = delete;
  Ephemeral& operator=(const Ephemeral&) = delete;

  static void on_fire(Timer& timer, std::int64_t, sched::WakeBatch&) {
    static_cast<Ephemeral&>(timer).self.reset();
  }

  std::shared_ptr<Ephemeral> self;
  std::atomic<int>& destroyed;
};

}  // namespace

TEST_CASE("timers: each fires or is cancelled, and never both", "[timers][E3]") {
  const int workers = GENERATE(1, 2, 4);
  constexpr std::uint64_t kFibers = 64;
  const std::uint64_t armings = kSanitized ? 20'000 : soak() ? 3'400'000 : 100'000;
  const std::uint64_t seed = test::seed();
  Totals totals;
  // Every wake moves its fiber: then many a timer is disarmed by another worker than the one that fires it.
  auto started = Runtime::start(
      {.workers = workers, .shuffle_wakes = true, .handle_signals = false, .timer_slack = {}});
  REQUIRE(started.ok());
  Runtime& runtime = **started;
  long resident_kib = 0;
  {
    test::Watchdog watchdog(*sched::core_of(runtime), [&] { return totals.armed.load(); });
    FiberGroup group(runtime);
    for (std::uint64_t i = 0; i < kFibers; ++i) {
      group.spawn([&, i] {
        Marksman marksman(seed + i, totals);
        for (std::uint64_t step = 0; totals.armed < armings; ++step) {
          marksman.step();
          if (step % 32 == 0) sleep_for(absl::Microseconds(1)).IgnoreError();
          if (i == 0 && resident_kib == 0 && totals.armed > armings / 4) {
            resident_kib = test::process_use().resident_kib;
          }
        }
      });
    }
    CHECK(group.join().ok());
  }
  const long grown_kib = test::process_use().resident_kib - resident_kib;
  std::printf("workers=%d armed=%llu fired=%llu cancelled=%llu resident grew by %ld KiB\n", workers,
              static_cast<unsigned long long>(totals.armed),
              static_cast<unsigned long long>(totals.fired),
              static_cast<unsigned long long>(totals.cancelled), grown_kib);
  CHECK(totals.wrong == 0);
  CHECK(totals.fired > armings / 4);
  CHECK(totals.cancelled > armings / 16);
  if (!kSanitized) CHECK(grown_kib < 1024);
  CHECK(runtime.stop().ok());
}

TEST_CASE("timers: one may destroy itself when it fires", "[timers][E4]") {
  const int workers = GENERATE(1, 2);
  constexpr int kTimers = 1000;
  std::atomic<int> destroyed{0};
  test::on_fiber({.workers = workers}, [&] {
    test::Random random(test::seed());
    sched::Core& core = sched::Core::of(*sched::current_fiber());
    test::Watchdog watchdog(core, [&] { return static_cast<std::uint64_t>(destroyed.load()); });
    for (int i = 0; i < kTimers; ++i) {
      auto timer = std::make_shared<Ephemeral>(destroyed);
      timer->self = timer;
      arm(*timer, static_cast<std::int64_t>(random.below(1'000'000)));
    }
    test::yield_until([&] { return destroyed == kTimers; });
  });
  CHECK(destroyed == kTimers);
}
