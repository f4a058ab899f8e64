// Fibers when memory runs out: the fiber whose turn it was ends unrun with kResourceExhausted and words that
// help, its closure destroyed; everybody else runs on; and with memory back everything works again.

#include <weft/fiber.h>
#include <weft/runtime.h>
#include <weft/scope.h>
#include <weft/time.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <memory>
#include <string>
#include <vector>

#include <sys/mman.h>

#include <catch2/catch.hpp>

#include "runtime/os/system.h"
#include "runtime/sched/core.h"
#include "tests/support/on_fiber.h"
#include "tests/support/sanitizer.h"
#include "tests/support/watchdog.h"

using namespace weft;
using os::system::Call;

namespace {

constexpr bool kSanitized = test::kAddressSanitizer || test::kThreadSanitizer;
constexpr unsigned kForEver = ~0u;
constexpr int kFibers = 80;  // more than a first arena holds, and than a worker keeps
constexpr std::array<std::size_t, 4> kSizes = {0, 16 << 10, 64 << 10, 1 << 20};

struct Outcome {
  int ran = 0;
  int refused = 0;
  int closures = 0;       // how many were destroyed
  std::string otherwise;  // an end that is neither
};

// Says whether a refusal tells what failed and what to change.
bool helps(const absl::Status& status) {
  const std::string text(status.message());
  return text.find("fiber stack of ") != text.npos && text.find("; ") != text.npos &&
         text.substr(text.find("; ")).size() > 20;
}

// Fibers of all sizes at once, each on a stack of its own. Call from: a fiber.
Outcome spawn_many() {
  Outcome outcome;
  auto alive = std::make_shared<int>(0);
  std::atomic<int> ran{0};
  {
    Scope scope({.on_error = OnError::kKeepGoing});
    std::vector<Fiber<void>> fibers;
    for (int i = 0; i < kFibers; ++i) {
      fibers.push_back(scope.spawn(
          [alive, &ran] {
            ++ran;
            for (int turns = 0; turns < 3; ++turns) this_fiber::yield();
          },
          {.stack_size = kSizes[static_cast<unsigned>(i) % kSizes.size()]}));
    }
    for (auto& fiber : fibers) {
      const absl::Status status = fiber.join();
      if (status.ok()) continue;
      if (status.code() == absl::StatusCode::kResourceExhausted && helps(status)) {
        ++outcome.refused;
      } else {
        outcome.otherwise = status.ToString();
      }
    }
    static_cast<void>(scope.join());
  }
  outcome.ran = ran;
  outcome.closures = kFibers + 1 - static_cast<int>(alive.use_count());
  return outcome;
}

struct Attempt {
  absl::StatusOr<Outcome> during = absl::UnknownError("not run");
  absl::StatusOr<Outcome> afterwards = absl::UnknownError("not run");
  unsigned calls = 0;
  bool others_ran = false;
};

// A runtime of its own in which call `nth` fails, and `repeat - 1` after it.
Attempt attempt(int workers, Call call, unsigned nth, int error, unsigned repeat, int advice) {
  Attempt result;
  auto runtime = Runtime::start({.workers = workers, .handle_signals = false});
  REQUIRE(runtime.ok());
  std::atomic<bool> over{false};
  std::atomic<std::uint64_t> turns{0};
  std::atomic<int> started{0};
  FiberGroup bystanders(**runtime);
  for (int i = 0; i < 4; ++i) {
    bystanders.spawn([&] {
      ++started;
      while (!over) {
        ++turns;
        this_fiber::yield();
      }
    });
  }
  while (started < 4) sched_yield();  // they have their stacks
  std::uint64_t turns_before = 0;
  auto body = (*runtime)->root().spawn([&] {
    os::system::arm_fault(call, nth, error, repeat, advice);
    turns_before = turns;
    Outcome outcome = spawn_many();
    test::yield_until([&] { return turns > turns_before + 100; });
    result.calls = os::system::calls_seen(call);
    os::system::disarm_faults();
    return outcome;
  });
  result.during = body.join();
  result.others_ran = turns > turns_before;
  result.afterwards = (*runtime)->block_on(&spawn_many);
  over = true;
  CHECK(bystanders.join().ok());
  CHECK((*runtime)->stop().ok());
  return result;
}

}  // namespace

TEST_CASE("fiber shortage: whichever call fails, one fiber pays and the others run on",
          "[stack][G4]") {
  struct Case {
    Call call;
    int error;
    int advice;
  };
  const auto each = GENERATE(Case{Call::kMmap, ENOMEM, -1}, Case{Call::kMmap, EAGAIN, -1},
                             Case{Call::kMprotect, ENOMEM, PROT_READ | PROT_WRITE},
                             Case{Call::kMadvise, ENOMEM, 102});
  const unsigned repeat = GENERATE(1u, kForEver);
  const int workers = GENERATE(1, 2);
  std::atomic<std::uint64_t> attempts{0};
  test::Watchdog watchdog([&] { return attempts.load(); });
  const unsigned step = kSanitized ? 7 : 1;
  unsigned refused = 0;
  for (unsigned nth = 0;; nth += step) {
    const Attempt got = attempt(workers, each.call, nth, each.error, repeat, each.advice);
    ++attempts;
    INFO("workers " << workers << ", call " << nth << " of " << got.calls << ", repeat " << repeat);
    REQUIRE(got.during.ok());
    REQUIRE(got.afterwards.ok());
    REQUIRE(got.during->otherwise.empty());
    REQUIRE(got.during->ran + got.during->refused == kFibers);
    REQUIRE(got.during->closures == kFibers);
    REQUIRE(got.others_ran);
    REQUIRE(got.afterwards->ran == kFibers);
    refused += static_cast<unsigned>(got.during->refused);
    // What fails once is tried again, after idle memory was given back.
    if (repeat == 1) REQUIRE(got.during->refused == 0);
    if (got.calls <= nth) break;
  }
  if (repeat == kForEver) CHECK(refused > 0);
}

TEST_CASE("fiber shortage: without memory for control blocks a spawn says so", "[stack][G4]") {
  absl::Status handle;
  absl::Status group;
  bool ran = false;
  test::on_fiber({.workers = 1}, [&] {
    FiberGroup kept({.on_error = OnError::kKeepGoing});
    std::vector<Fiber<void>> fibers;
    os::system::arm_fault(Call::kMmap, 0, ENOMEM, kForEver);
    // Parked ones keep their blocks: some mapping of blocks is full one day.
    do {
      fibers.push_back(kept.spawn([] { static_cast<void>(test::park_until_interrupted()); }));
    } while (os::system::calls_seen(Call::kMmap) == 0 && fibers.size() < 2'000'000);
    handle = fibers.back().wait();
    os::system::disarm_faults();
    kept.cancel();
    group = kept.join();
    Scope scope;
    scope.spawn([&ran] { ran = true; });
    static_cast<void>(scope.join());
  });
  CHECK(handle.code() == absl::StatusCode::kResourceExhausted);
  CHECK(std::string(handle.message()).find("control block") != std::string::npos);
  CHECK(group.code() == absl::StatusCode::kResourceExhausted);
  CHECK(ran);
}

TEST_CASE("fiber shortage: a runtime that cannot prewarm says so and leaves nothing",
          "[stack][G4]") {
  const unsigned nth = GENERATE(0u, 1u, 50u);
  os::system::arm_fault(Call::kMadvise, nth, ENOMEM, kForEver, 102);
  const absl::Status status =
      Runtime::start({.workers = 2, .handle_signals = false, .prewarm = 100}).status();
  os::system::disarm_faults();
  CHECK(status.code() == absl::StatusCode::kResourceExhausted);
  CHECK(helps(status));
  CHECK(Runtime::start({.workers = 2, .handle_signals = false, .prewarm = 100}).ok());
}
