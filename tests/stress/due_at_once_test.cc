// A process that was stopped: afterwards a hundred thousand deadlines are over at once. All of them fire, and
// a connection goes on between them. [E5]

#include <weft/fiber.h>
#include <weft/net.h>
#include <weft/runtime.h>
#include <weft/time.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>

#include <poll.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "runtime/os/clock.h"
#include "runtime/sched/chaos.h"
#include "runtime/sched/core.h"
#include "tests/support/on_fiber.h"
#include "tests/support/sanitizer.h"
#include "tests/support/watchdog.h"

using namespace weft;

namespace {

constexpr bool kSanitized = test::kAddressSanitizer || test::kThreadSanitizer;
constexpr std::uint64_t kSleepers = kSanitized ? 5'000 : 100'000;

// What the stopped process tells its parent, in memory that both have.
struct Report {
  std::atomic<bool> in_time{false};  // all slept before the deadline
  std::atomic<std::uint64_t> woken{0};
  std::atomic<std::uint64_t> longest_gap{
      0};                                 // sleepers woken between two answers on the connection
  std::atomic<std::uint64_t> answers{0};  // while they woke
};

// One byte there and back, until all sleepers are awake.
void echo_until_awake(Report& report) {
  auto listener = TcpListener::bind("127.0.0.1:0");
  if (!listener.ok()) return;
  auto server = background().spawn([&] {
    auto stream = listener->accept();
    std::array<char, 1> byte{};
    while (stream.ok() && stream->read_exactly(byte).ok() && stream->write_all(byte).ok()) {
    }
  });
  {
    auto stream = TcpStream::connect(listener->local().to_string());
    std::uint64_t last = 0;
    std::array<char, 1> byte{'x'};
    while (stream.ok() && report.woken < kSleepers && stream->write_all(byte).ok() &&
           stream->read_exactly(byte).ok()) {
      const std::uint64_t now = report.woken;
      report.longest_gap = std::max(report.longest_gap.load(), now - last);
      if (now != 0) ++report.answers;
      last = now;
    }
  }
  server.wait().IgnoreError();
}

// The child. Stops itself when all sleep; its parent lets it go on when their time is over.
[[noreturn]] void sleep_and_stop(int workers, std::int64_t deadline_ns, Report& report) {
  auto runtime = Runtime::start({.workers = workers, .handle_signals = false});
  if (!runtime.ok()) _exit(2);
  test::Watchdog watchdog(*sched::core_of(**runtime),
                          [&] { return report.woken + (*runtime)->metrics().switches; });
  std::atomic<std::uint64_t> asleep{0};
  auto echo = (*runtime)->root().spawn([&] { echo_until_awake(report); });
  for (std::uint64_t i = 0; i < kSleepers; ++i) {
    (*runtime)->root().spawn([&] {
      const absl::Duration left = absl::Nanoseconds(deadline_ns - os::now_ns());
      ++asleep;
      sleep_for(left).IgnoreError();
      ++report.woken;
    });
  }
  while (asleep != kSleepers) sched_yield();
  report.in_time = os::now_ns() < deadline_ns;
  raise(SIGSTOP);
  echo.wait().IgnoreError();
  _exit((*runtime)->stop().ok() ? 0 : 3);
}

}  // namespace

TEST_CASE(
    "timers: all that were missed while the process was stopped fire, and I/O goes on between",
    "[timers][E5]") {
  const int workers = GENERATE(1, 2);
  void* shared =
      mmap(nullptr, sizeof(Report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(shared != MAP_FAILED);
  auto* report = static_cast<Report*>(shared);
  // On a slow machine the sleepers need longer to fall asleep than the first deadline gives them.
  std::int64_t length_ns = (std::getenv("WEFT_SOAK") != nullptr ? 5 : 1) * os::kNanosPerSecond;
  int status = -1;
  do {
    report = new (shared) Report;
    const std::int64_t deadline_ns = os::now_ns() + length_ns;
    const pid_t child = fork();
    if (child == 0) sleep_and_stop(workers, deadline_ns, *report);
    REQUIRE(waitpid(child, &status, WUNTRACED) == child);
    if (!WIFSTOPPED(status)) break;
    while (os::now_ns() <= deadline_ns + os::kNanosPerSecond / 10) poll(nullptr, 0, 10);
    kill(child, SIGCONT);
    REQUIRE(waitpid(child, &status, 0) == child);
    length_ns *= 4;
  } while (!report->in_time && length_ns < 100 * os::kNanosPerSecond);
  CHECK(status == 0);
  CHECK(report->in_time);
  CHECK(report->woken == kSleepers);
  std::printf("workers=%d woken=%llu answers=%llu longest gap=%llu\n", workers,
              static_cast<unsigned long long>(report->woken),
              static_cast<unsigned long long>(report->answers),
              static_cast<unsigned long long>(report->longest_gap));
  // With one worker all turns are its own. An answer takes two waits, and each a few turns of 256 fibers.
  if (workers == 1 && !sched::kChaos && !kSanitized) CHECK(report->longest_gap <= 16 * 256);
  munmap(shared, sizeof(Report));
}
