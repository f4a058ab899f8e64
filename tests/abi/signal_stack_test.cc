// A signal may come between any two instructions, and its handler runs on the stack that is there: rsp must
// point into the stack of the worker or of its current fiber at every single one, or the handler overwrites
// whatever lies below. So a profiler's signal strikes both workers while their fibers switch.
#include <weft/runtime.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <string>

#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>

#include <catch2/catch.hpp>

#include "arch/x86_64/syscall.h"
#include "runtime/sched/stack.h"
#include "runtime/sched/worker.h"
#include "tests/support/watchdog.h"

namespace weft::test {
namespace {

constexpr int kWorkers = 2;
constexpr long kPeriodNs = 500'000;  // 2000 Hz

struct Bounds {
  std::uintptr_t low = 0, high = 0;
  bool hold(std::uintptr_t address) const { return low <= address && address < high; }
};

// What the handlers need and find. Relaxed throughout: each worker's row is written by its own thread, and
// read by others as a statistic, or when all is over.
struct alignas(64) Row {
  Bounds stack;
  timer_t timer{};
  std::atomic<bool> armed{false};
  std::atomic<std::uint64_t> on_worker{0}, on_fiber{0}, elsewhere{0};
};
std::array<Row, kWorkers> rows;

std::uint64_t sum(std::atomic<std::uint64_t> Row::*counter) {
  std::uint64_t total = 0;
  for (const Row& row : rows) total += (row.*counter).load(std::memory_order_relaxed);
  return total;
}

Bounds stack_of(const sched::FiberBlock& fiber) {
  const sched::Stack& stack = *fiber.frame->stack;
  return {reinterpret_cast<std::uintptr_t>(stack.low), reinterpret_cast<std::uintptr_t>(stack.top)};
}

void on_signal(int, siginfo_t*, void* context) {
  const auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  const auto interrupted = static_cast<std::uintptr_t>(registers[REG_RSP]);
  const auto own = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  sched::Worker* worker = sched::current_worker();
  Row& row = rows[static_cast<std::size_t>(worker->index())];
  const sched::FiberBlock* fiber = worker->current();
  std::atomic<std::uint64_t>* where = &row.elsewhere;
  if (row.stack.hold(interrupted) && row.stack.hold(own)) {
    where = &row.on_worker;
  } else if (fiber != nullptr && stack_of(*fiber).hold(interrupted) && stack_of(*fiber).hold(own)) {
    where = &row.on_fiber;
  }
  where->fetch_add(1, std::memory_order_relaxed);
}

// On the kernel thread that is to be struck.
void arm(Row& row) {
  pthread_attr_t attributes;
  void* low = nullptr;
  std::size_t bytes = 0;
  pthread_getattr_np(pthread_self(), &attributes);
  pthread_attr_getstack(&attributes, &low, &bytes);
  pthread_attr_destroy(&attributes);
  row.stack = {reinterpret_cast<std::uintptr_t>(low),
               reinterpret_cast<std::uintptr_t>(low) + bytes};
  sigevent event{};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = SIGPROF;
  event._sigev_un._tid = static_cast<pid_t>(arch::syscall(SYS_gettid));
  const itimerspec every = {{0, kPeriodNs}, {0, kPeriodNs}};
  if (timer_create(CLOCK_MONOTONIC, &event, &row.timer) != 0) std::abort();
  if (timer_settime(row.timer, 0, &every, nullptr) != 0) std::abort();
  row.armed.store(true, std::memory_order_relaxed);
}

[[gnu::noinline]] Row& row_of_this_worker() {
  return rows[static_cast<std::size_t>(sched::current_worker()->index())];
}

bool enough(std::uint64_t switches) {
  const bool soak = std::getenv("WEFT_SOAK") != nullptr;
  if (switches < (soak ? 100'000'000 : 1'000'000)) return false;
  for (const Row& row : rows) {
    // relaxed: as said at Row
    const std::uint64_t struck = row.on_worker.load(std::memory_order_relaxed) +
                                 row.on_fiber.load(std::memory_order_relaxed);
    if (struck < (soak ? 20'000 : 500)) return false;
  }
  return true;
}

TEST_CASE("signals: 2000 a second on each worker find rsp in a stack, whatever they interrupt",
          "[abi][A5]") {
  struct sigaction action {};
  action.sa_sigaction = &on_signal;
  action.sa_flags = SA_SIGINFO | SA_RESTART;  // and not SA_ONSTACK: that is the point
  REQUIRE(sigaction(SIGPROF, &action, nullptr) == 0);
  std::atomic<std::uint64_t> switches{0};  // relaxed: a count
  const Watchdog watchdog([&] { return switches.load(std::memory_order_relaxed); });
  const int status = run(
      [&] {
        Scope scope;
        std::atomic<bool> over{false};  // relaxed: only that it comes
        for (int i = 0; i < 8; ++i) {
          scope.spawn([&] {
            while (!over.load(std::memory_order_relaxed)) {
              Row& row = row_of_this_worker();
              if (!row.armed.load(std::memory_order_relaxed)) arm(row);
              for (int k = 0; k < 100; ++k) this_fiber::yield();
              // A child, so that stacks begin and end as well, and fibers come to the other worker.
              Scope inner;
              static_cast<void>(inner.spawn([] {}).join());
              static_cast<void>(inner.join());
              const auto now = switches.fetch_add(102, std::memory_order_relaxed) + 102;
              if (enough(now)) over.store(true, std::memory_order_relaxed);
            }
          });
        }
        const absl::Status joined = scope.join();
        for (const Row& row : rows) timer_delete(row.timer);
        return joined;
      },
      {.workers = kWorkers, .handle_signals = false});
  std::signal(SIGPROF, SIG_IGN);
  CHECK(status == 0);
  CHECK(sum(&Row::elsewhere) == 0);
  CHECK(sum(&Row::on_worker) > 0);
  CHECK(sum(&Row::on_fiber) > 0);
  UNSCOPED_INFO(switches.load() << " switches");
}

}  // namespace
}  // namespace weft::test
