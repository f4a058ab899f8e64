// Signals at any moment: handlers that run on a fiber's stack or on the worker's own one for signals, storms of
// them at every worker, and a profiler that walks the stack of whatever it interrupts.

#include <weft/fiber.h>
#include <weft/runtime.h>
#include <weft/scope.h>
#include <weft/time.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <execinfo.h>
#include <link.h>
#include <sys/time.h>
#include <time.h>
#include <ucontext.h>
#include <unwind.h>

#include <catch2/catch.hpp>

#include "runtime/sched/core.h"
#include "runtime/sched/stack_registry.h"
#include "tests/support/on_fiber.h"
#include "tests/support/sanitizer.h"
#include "tests/support/watchdog.h"

using namespace weft;

namespace {

constexpr bool kSanitized = test::kAddressSanitizer || test::kThreadSanitizer;
bool soak() { return std::getenv("WEFT_SOAK") != nullptr; }

// relaxed, here and below: counters that order nothing.
std::atomic<std::uint64_t> handled{0};
std::atomic<std::uint64_t> on_fibers{0};  // of these, on the stack of a fiber
std::atomic<std::uint64_t> frames_seen{0};
std::atomic<std::uint64_t> bad{0};

void count_signal(int, siginfo_t*, void*) {
  const int error = errno;
  int local = 0;
  handled.fetch_add(1, std::memory_order_relaxed);
  if (sched::find_stack(&local)) on_fibers.fetch_add(1, std::memory_order_relaxed);
  errno = E2BIG;  // a careless call, whose trace must not reach the fiber
  errno = error;
}

// Where the unwinder's code is. While it installs a landing pad its own frames are half overwritten, and who
// walks them reads anywhere: it kills a plain thread that does `throw;` within a second, without any fiber.
struct CodeRange {
  std::uintptr_t low = 0;
  std::uintptr_t end = 0;
  bool has(std::uintptr_t address) const { return low <= address && address < end; }
};

CodeRange unwinder_code() {
  CodeRange found;
  const auto look = [](dl_phdr_info* object, std::size_t, void* result) {
    const auto wanted = reinterpret_cast<std::uintptr_t>(&_Unwind_RaiseException);
    for (int i = 0; i < object->dlpi_phnum; ++i) {
      const auto& part = object->dlpi_phdr[i];
      const CodeRange range{object->dlpi_addr + part.p_vaddr,
                            object->dlpi_addr + part.p_vaddr + part.p_memsz};
      if (part.p_type == PT_LOAD && (part.p_flags & PF_X) != 0 && range.has(wanted)) {
        *static_cast<CodeRange*>(result) = range;
      }
    }
    return 0;
  };
  dl_iterate_phdr(look, &found);
  return found;
}

CodeRange unwinder;

// A sampling profiler: where was the thread?
void take_sample(int, siginfo_t*, void* context) {
  const int error = errno;
  const auto& registers = static_cast<const ucontext_t*>(context)->uc_mcontext.gregs;
  if (!unwinder.has(static_cast<std::uintptr_t>(registers[REG_RIP]))) {
    void* frames[64];
    const int count = backtrace(frames, 64);
    frames_seen.fetch_add(static_cast<unsigned>(count), std::memory_order_relaxed);
    // Itself, the frame of the signal, and what was interrupted.
    if (count < 3) bad.fetch_add(1, std::memory_order_relaxed);
  }
  handled.fetch_add(1, std::memory_order_relaxed);
  errno = error;
}

class Handler {
 public:
  Handler(int signal, void (*handler)(int, siginfo_t*, void*), int flags) : signal_(signal) {
    void* first[1];
    backtrace(first, 1);  // loads what it needs: not in a handler
    unwinder = unwinder_code();
    handled = on_fibers = frames_seen = bad = 0;
    struct sigaction action = {};
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO | flags;
    sigaction(signal, &action, &former_);
  }
  // Ignored first: one that is still on its way must not meet the default action.
  ~Handler() {
    std::signal(signal_, SIG_IGN);
    sigaction(signal_, &former_, nullptr);
  }
  Handler(const Handler&) = delete;
  Handler& operator=(const Handler&) = delete;

 private:
  int signal_;
  struct sigaction former_;
};

// The kernel threads of the workers, by their names.
std::vector<int> worker_threads() {
  std::vector<int> found;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::string name;
    std::getline(std::ifstream(task.path() / "comm"), name);
    if (name.rfind("weft-", 0) == 0) found.push_back(std::stoi(task.path().filename()));
  }
  return found;
}

struct Result {
  std::uint64_t turns = 0;
  std::uint64_t wrong = 0;
};

[[gnu::noinline]] int throw_and_catch(int depth, int number) {
  if (depth == 0) throw number;
  const int caught = throw_and_catch(depth - 1, number);
  asm volatile("" ::: "memory");
  return caught;
}

// Compilers keep the address of errno, which is the thread's, over a switch: not over these.
[[gnu::noinline]] void set_errno(int number) {
  errno = number;
  asm volatile("" ::: "memory");
}
[[gnu::noinline]] int get_errno() {
  asm volatile("" ::: "memory");
  return errno;
}

// Switches, exceptions with a switch inside the catch, timers and errno, until `over`.
Result work(Runtime& runtime, const std::function<bool()>& over) {
  std::atomic<std::uint64_t> turns{0};
  std::atomic<std::uint64_t> wrong{0};
  test::Watchdog watchdog(*sched::core_of(runtime), [&] { return turns.load(); });
  FiberGroup group(runtime);
  for (int i = 0; i < 12; ++i) {
    group.spawn([&, i] {
      for (int round = 0; !over(); ++round) {
        ++turns;
        const int number = i * 1000 + round % 1000;
        set_errno(number);
        try {
          throw_and_catch(5, number);
          ++wrong;
        } catch (const int caught) {
          this_fiber::yield();
          wrong += caught == number ? 0 : 1;
          try {
            throw;
          } catch (const int again) {
            wrong += again == number ? 0 : 1;
          }
        }
        wrong += get_errno() == number ? 0 : 1;
        if (round % 64 == i) static_cast<void>(sleep_for(absl::Microseconds(20)));
        Scope scope;
        wrong += scope.spawn([number] { return number; }).join().value_or(-1) == number ? 0 : 1;
        static_cast<void>(scope.join());
      }
    });
  }
  if (!group.join().ok()) ++wrong;
  return {turns, wrong};
}

// Sends `signal` to every worker thousands of times a second: from timers of the kernel, which wait for nobody.
class Storm {
 public:
  explicit Storm(int signal) {
    const long period_ns = kSanitized ? 500'000 : 100'000;
    for (const int thread : worker_threads()) {
      sigevent event = {};
      event.sigev_notify = SIGEV_THREAD_ID;
      event.sigev_signo = signal;
      event._sigev_un._tid = thread;
      timer_t timer = {};
      if (timer_create(CLOCK_MONOTONIC, &event, &timer) != 0) continue;
      const itimerspec period = {{0, period_ns}, {0, period_ns}};
      timer_settime(timer, 0, &period, nullptr);
      timers_.push_back(timer);
    }
  }
  ~Storm() {
    for (timer_t timer : timers_) timer_delete(timer);
  }
  Storm(const Storm&) = delete;
  Storm& operator=(const Storm&) = delete;

 private:
  std::vector<timer_t> timers_;
};

std::unique_ptr<Runtime> started(int workers) {
  auto runtime = Runtime::start({.workers = workers, .handle_signals = false});
  REQUIRE(runtime.ok());
  return *std::move(runtime);
}

}  // namespace

TEST_CASE("signals: storms at all workers disturb no fiber", "[signals][I11]") {
  const int workers = GENERATE(1, 2, 4);
  const int flags = GENERATE(0, SA_ONSTACK, SA_ONSTACK | SA_RESTART);
  const std::uint64_t wanted = soak() ? 20'000 : kSanitized ? 200 : 1'000;
  const Handler handler(SIGUSR1, &count_signal, flags);
  auto runtime = started(workers);
  REQUIRE(worker_threads().size() == static_cast<std::size_t>(workers));
  Result result;
  {
    const Storm storm(SIGUSR1);
    result = work(*runtime, [wanted] { return handled >= wanted; });
  }
  INFO("workers " << workers << ", flags " << flags << ", turns " << result.turns << ", on fibers "
                  << on_fibers);
  CHECK(result.wrong == 0);
  CHECK(runtime->stop().ok());
  if (test::kThreadSanitizer) return;  // it runs handlers later, at a call that it intercepts
  // Without SA_ONSTACK the handler runs where the fiber was; with it never.
  if ((flags & SA_ONSTACK) == 0) {
    CHECK(on_fibers > 0);
  } else {
    CHECK(on_fibers == 0);
  }
}

TEST_CASE("signals: a profiler may walk the stack of whatever it interrupts", "[signals][I7]") {
  const int workers = GENERATE(1, 2);
  const bool by_timer = GENERATE(false, true);
  const std::uint64_t wanted = by_timer ? (soak()       ? 2'000
                                           : kSanitized ? 20
                                                        : 80)
                                        : (soak()       ? 50'000
                                           : kSanitized ? 200
                                                        : 1'000);
  const Handler handler(SIGPROF, &take_sample, SA_ONSTACK | SA_RESTART);
  auto runtime = started(workers);
  Result result;
  if (by_timer) {
    const itimerval every_millisecond = {{0, 1000}, {0, 1000}};
    const itimerval never = {};
    setitimer(ITIMER_PROF, &every_millisecond, nullptr);
    result = work(*runtime, [wanted] { return handled >= wanted; });
    setitimer(ITIMER_PROF, &never, nullptr);
  } else {
    const Storm storm(SIGPROF);
    result = work(*runtime, [wanted] { return handled >= wanted; });
  }
  INFO("workers " << workers << ", turns " << result.turns << ", samples " << handled << ", frames "
                  << frames_seen);
  CHECK(result.wrong == 0);
  CHECK(bad == 0);
  CHECK(runtime->stop().ok());
}
