// Exceptions and parking: what libstdc++ keeps per thread, the chain of caught exceptions and the count of
// those in flight, belongs to the fiber, wherever it goes on.
#include <weft/runtime.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <string>
#include <thread>

#include <sys/resource.h>

#include <catch2/catch.hpp>

#include "tests/abi/migration.h"
#include "tests/support/random.h"

namespace weft::test {
namespace {

// The exceptions of these tests, each with a mark by which it is known again.
struct Thrown {
  explicit Thrown(std::uint64_t of) : mark(of) { alive.fetch_add(1, std::memory_order_relaxed); }
  Thrown(const Thrown& other) : Thrown(other.mark) {}
  Thrown& operator=(const Thrown&) = delete;
  ~Thrown() { alive.fetch_sub(1, std::memory_order_relaxed); }

  std::uint64_t mark;
  static inline std::atomic<int> alive{0};  // relaxed: read when all fibers have ended
};

const bool kSoak = std::getenv("WEFT_SOAK") != nullptr;

int long_or_short(int quick) { return kSoak ? 20 * quick : quick; }

// ---- Inside catch

constexpr int kLevels = 8;

class Nest {
 public:
  Nest(std::uint64_t seed, Migrations& migrations) : random_(seed), migrations_(migrations) {}

  void run(int rounds) {
    for (int i = 0; i < rounds; ++i) {
      enter(1);
      migrations_.expect(std::current_exception() == nullptr, "an exception stays behind");
    }
  }

 private:
  void park() { migrations_.park(random_); }

  void enter(int level) {
    const std::uint64_t mark = random_.next();
    try {
      throw Thrown(mark);
    } catch (const Thrown& caught) {
      park();
      migrations_.expect(caught.mark == mark, "the caught exception is another one");
      if (level < kLevels && !random_.one_in(6)) enter(level + 1);
      migrations_.expect(mark_of_current() == mark, "the current exception is another one");
      migrations_.expect(std::uncaught_exceptions() == 0, "a caught exception counts as uncaught");
      if (random_.one_in(2)) rethrow(mark);
      if (random_.one_in(2)) keep_and_rethrow(mark);
    }
  }

  // `throw;` finds what the thread has as its innermost caught exception.
  void rethrow(std::uint64_t mark) {
    try {
      park();
      throw;
    } catch (const Thrown& again) {
      park();
      migrations_.expect(again.mark == mark, "throw; threw another exception");
    }
  }

  void keep_and_rethrow(std::uint64_t mark) {
    const std::exception_ptr kept = std::current_exception();
    park();
    try {
      std::rethrow_exception(kept);
    } catch (const Thrown& again) {
      park();
      migrations_.expect(again.mark == mark, "an exception_ptr holds another exception");
    }
  }

  static std::uint64_t mark_of_current() {
    try {
      throw;
    } catch (const Thrown& current) {
      return current.mark;
    }
  }

  Random random_;
  Migrations& migrations_;
};

TEST_CASE("exceptions: caught ones survive parking and migration, nested and rethrown",
          "[exceptions][H3]") {
  constexpr int kFibers = 32;
  const int seeds = kSoak ? 64 : 8;
  Random random(seed());
  Migrations migrations;
  for (int i = 0; i < seeds; ++i) {
    const int status = run_fibers(
        kFibers, random, [&migrations](Random& own) { Nest(own.next(), migrations).run(100); });
    REQUIRE(status == 0);
    REQUIRE(migrations.wrong() == "");
  }
  CHECK(migrations.parks() > 15'000 * seeds);
  CHECK(migrations.seen() > 100);
  CHECK(Thrown::alive.load(std::memory_order_relaxed) == 0);
}

// ---- While unwinding

// Parks in its destructor, where exceptions are in flight.
class ParksAtItsEnd {
 public:
  ParksAtItsEnd(Random& random, Migrations& migrations, int level)
      : random_(random), migrations_(migrations), level_(level) {}
  ParksAtItsEnd(const ParksAtItsEnd&) = delete;
  ParksAtItsEnd& operator=(const ParksAtItsEnd&) = delete;

  ~ParksAtItsEnd() {
    const bool fails = std::uncaught_exceptions() > uncaught_before_;
    migrations_.park(random_);
    migrations_.expect(std::uncaught_exceptions() == uncaught_before_ + (fails ? 1 : 0),
                       "the count of exceptions in flight changed over a park");
    if (level_ < 3) throw_and_catch(random_, migrations_, level_ + 1);
    migrations_.expect((std::uncaught_exceptions() > uncaught_before_) == fails,
                       "a scope forgot that it fails");
  }

  static void throw_and_catch(Random& random, Migrations& migrations, int level) {
    const std::uint64_t mark = random.next();
    const int in_flight = std::uncaught_exceptions();
    try {
      ParksAtItsEnd parks(random, migrations, level);
      if (random.one_in(4)) return;
      throw Thrown(mark);
    } catch (const Thrown& caught) {
      migrations.expect(caught.mark == mark, "another exception was caught");
      migrations.expect(std::uncaught_exceptions() == in_flight, "a caught exception still counts");
    }
  }

 private:
  Random& random_;
  Migrations& migrations_;
  const int level_;
  const int uncaught_before_ = std::uncaught_exceptions();
};

TEST_CASE("exceptions: those in flight are counted by fiber while destructors park",
          "[exceptions][H4]") {
  constexpr int kFibers = 32;
  Random random(seed());
  Migrations migrations;
  const int status = run_fibers(kFibers, random, [&migrations](Random& own) {
    for (int round = 0; round < long_or_short(100); ++round) {
      ParksAtItsEnd::throw_and_catch(own, migrations, 1);
      migrations.expect(std::uncaught_exceptions() == 0, "an exception is still in flight");
    }
  });
  CHECK(status == 0);
  CHECK(migrations.wrong() == "");
  CHECK(migrations.seen() > 100);
  CHECK(Thrown::alive.load(std::memory_order_relaxed) == 0);
}

// ---- Many at once

// A lock around unwinding would put waiting workers to sleep: a process that only throws has no reason to.
TEST_CASE("exceptions: a storm of them on eight workers meets no lock", "[exceptions][H5]") {
  const int workers = GENERATE(1, 2, 8);
  const int throws = kSoak ? 1'000'000 : 20'000;
  std::atomic<int> caught{0};
  rusage before{};
  rusage after{};
  const int status = run(
      [&] {
        std::atomic<int> standing{0};
        Scope scope;
        getrusage(RUSAGE_SELF, &before);
        for (int i = 0; i < workers; ++i) {
          scope.spawn([&] {
            // One for each worker: it blocks its own until all have come.
            for (++standing; standing != workers;) std::this_thread::yield();
            for (int left = throws; left > 0; --left) {
              try {
                throw Thrown(static_cast<std::uint64_t>(left));
              } catch (const Thrown& thrown) {
                // relaxed: a count, read when all fibers have ended.
                if (thrown.mark == static_cast<std::uint64_t>(left))
                  caught.fetch_add(1, std::memory_order_relaxed);
              }
            }
          });
        }
        const absl::Status joined = scope.join();
        getrusage(RUSAGE_SELF, &after);
        return joined;
      },
      {.workers = workers, .handle_signals = false});
  CHECK(status == 0);
  CHECK(caught == workers * throws);
  CHECK(Thrown::alive.load(std::memory_order_relaxed) == 0);
  const long sleeps = after.ru_nvcsw - before.ru_nvcsw;
  INFO("voluntary context switches: " << sleeps);
  CHECK(sleeps < throws / 20);
}

}  // namespace
}  // namespace weft::test
