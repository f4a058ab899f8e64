// A program that ends in the way that it is told: what exit_test.py and runtime_strace_test.py observe.
//
//   endings exit switching        exit(7) from main while fibers switch
//   endings terminate spinning    std::terminate in a fiber while others compute without a pause
//   endings overflow              a fiber recurses until its stack ends
//   endings workers 3             starts and stops a runtime with three workers
//
// The static object below is older than any runtime, as the objects of a program usually are: its
// destructor takes away what the fibers work on. A fiber that runs on after it shows as SIGSEGV.

#include <weft/fiber.h>
#include <weft/net.h>
#include <weft/runtime.h>
#include <weft/scope.h>
#include <weft/time.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "arch/x86_64/cpu.h"
#include "runtime/sched/core.h"
#include "runtime/sched/worker.h"

using namespace weft;

namespace {

constexpr int kStatus = 7;
constexpr std::size_t kDataBytes = 64 << 10;

void say(const char* text) {
  if (write(STDOUT_FILENO, text, std::strlen(text)) < 0) _exit(99);
}

// Readable memory until it is destroyed.
struct Data {
  Data()
      : bytes(static_cast<char*>(mmap(nullptr, kDataBytes, PROT_READ | PROT_WRITE,
                                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {}
  ~Data() {
    mprotect(bytes, kDataBytes, PROT_NONE);
    say("destroyed\n");
  }
  char* bytes;
};
Data data;

std::atomic<int> running{0};

void touch_data(unsigned& at) {
  at = (at + 4099) % kDataBytes;
  // relaxed: all fibers touch the same bytes, and what is in them does not matter.
  std::atomic_ref<char>(data.bytes[at]).fetch_add(1, std::memory_order_relaxed);
}

[[noreturn]] void switch_for_ever() {
  ++running;
  for (unsigned at = 0;; this_fiber::yield()) touch_data(at);
}

// Not a pause and no wait: nobody can stop this fiber.
[[noreturn]] void spin_for_ever() {
  ++running;
  for (unsigned at = 0;; arch::pause()) touch_data(at);
}

// Fibers that can be stopped get time enough for a machine that is busy; the others use all that they get.
constexpr absl::Duration kAmple = absl::Seconds(30);
constexpr absl::Duration kBrief = absl::Milliseconds(50);

Options options(absl::Duration shutdown_limit) {
  return {.workers = 2,
          .handle_signals = false,
          .drain = absl::ZeroDuration(),
          .shutdown_limit = shutdown_limit};
}

struct Load {
  int fibers;
  void (*body)();
  absl::Duration shutdown_limit;
};
const Load kSwitching = {20, switch_for_ever, kAmple};
const Load kSpinning = {2, spin_for_ever, kBrief};  // one a worker: no other fiber runs afterwards

void start_load(FiberGroup& group, const Load& load, int count) {
  for (int i = 0; i < count; ++i) group.spawn([body = load.body] { body(); }, {.name = "load"});
}

[[noreturn]] void finish(const std::string& how) {
  if (how == "quick_exit") quick_exit(kStatus);
  if (how == "_exit") _exit(kStatus);
  if (how == "abort") abort();
  if (how == "terminate") std::terminate();
  exit(kStatus);
}

// Ends from main's thread, with the runtime alive.
int end_from_main(const std::string& how, const Load& load) {
  static Runtime* const runtime =
      Runtime::start(options(load.shutdown_limit))->release();  // never destroyed
  start_load(runtime->root(), load, load.fibers);
  while (running != load.fibers) std::this_thread::yield();
  if (how == "return") return kStatus;
  if (how == "throw") throw std::runtime_error("nobody catches this");
  finish(how);
}

// Ends from a fiber; with spinning ones the other worker is the one that never comes back.
int end_from_fiber(const std::string& how, const Load& load) {
  return run(
      [&]() -> int {
        const int others = load.fibers == kSpinning.fibers ? 1 : load.fibers;
        start_load(background(), load, others);
        while (running != others) this_fiber::yield();
        if (how == "throw") {
          background()
              .spawn([] { throw std::runtime_error("nobody took this"); })
              .wait()
              .IgnoreError();
          // What nobody takes ends the process when its group dies.
          FiberGroup group;
          group.spawn([] { throw std::logic_error("nobody took this either"); })
              .wait()
              .IgnoreError();
          return kStatus;
        }
        finish(how);
      },
      options(load.shutdown_limit));
}

// ---- One ending each

[[gnu::noinline]] int recurse(int depth) {
  char frame[512];
  asm volatile("" : : "r"(frame) : "memory");
  const int result = depth > 1'000'000 ? 0 : recurse(depth + 1) + 1;
  asm volatile("" : : "r"(frame) : "memory");
  return result;
}

int overflow() {
  return run(
      [] {
        Scope scope;
        // Stacks that were used, given back and trimmed before: their guards must still be there.
        for (int i = 0; i < 10'000; ++i) {
          auto fiber = scope.spawn([] { this_fiber::yield(); });
          if (i % 64 == 0) fiber.wait().IgnoreError();
        }
        while (scope.size() != 0) this_fiber::yield();
        scope.spawn([] { recurse(0); }, {.name = "digger"}).wait().IgnoreError();
        return 0;
      },
      options(kAmple));
}

// An exception that nobody joins for, in a group that nobody joins. It cannot come out of a destructor.
int lost_exception() {
  return run(
      [] {
        try {
          FiberGroup group;
          group.spawn([] { throw std::runtime_error("lost on the way"); }).wait().IgnoreError();
        } catch (const std::exception&) {
          return 1;
        }
        return 0;
      },
      options(kAmple));
}

int hanging_run() {
  return run(
      [] {
        background().spawn([] { spin_for_ever(); }, {.name = "stubborn"});
        while (running != 1) this_fiber::yield();
      },
      options(kBrief));
}

int hanging_destructor() {
  auto runtime = *Runtime::start(options(kBrief));
  runtime->root().spawn([] { spin_for_ever(); }, {.name = "stubborn"});
  while (running != 1) std::this_thread::yield();
  return 0;
}

// A runtime that is itself a static object: its destructor comes after the hook of exit().
int static_runtime(const Load* load) {
  static std::unique_ptr<Runtime> runtime;
  runtime = *Runtime::start(options(kAmple));
  if (load != nullptr) {
    start_load(runtime->root(), *load, load->fibers);
    while (running != load->fibers) std::this_thread::yield();
  }
  return kStatus;
}

// A group that is a static object, with fibers that are parked for ever.
int static_group() {
  static std::optional<FiberGroup> group;
  Runtime* const runtime = Runtime::start(options(kAmple))->release();  // never destroyed
  group.emplace(*runtime);
  group->spawn([] {
    ++running;
    sleep_for(absl::InfiniteDuration()).IgnoreError();
  });
  start_load(*group, kSwitching, 2);
  while (running != 3) std::this_thread::yield();
  return kStatus;
}

int misuse(std::string_view what) {
  if (what == "scope") Scope scope;
  if (what == "timeout") Timeout timeout(absl::Seconds(1));
  if (what == "background") static_cast<void>(background());
  return 0;
}

// Answers each line on stdin when fibers have switched, slept and had a connection accepted since.
int stopped_again_and_again() {
  return run(
      [] {
        std::atomic<bool> over{false};
        std::atomic<unsigned> switched{0}, slept{0}, accepted{0};
        auto listener = TcpListener::bind("127.0.0.1:0");
        if (!listener.ok()) return 1;
        Scope scope;
        scope.spawn([&] {
          for (; !over; ++switched) this_fiber::yield();
        });
        scope.spawn([&] {
          for (; !over; ++slept) sleep_for(absl::Microseconds(100)).IgnoreError();
        });
        scope.spawn([&] {
          while (!over) accepted += listener->accept().ok() ? 1 : 0;
        });
        scope.spawn([&] {
          for (const std::string address = listener->local().to_string(); !over;) {
            TcpStream::connect(address).IgnoreError();
            sleep_for(absl::Milliseconds(1)).IgnoreError();  // spares the ports
          }
        });
        std::thread answering([&] {
          while (std::getchar() != EOF) {
            const unsigned before[] = {switched, slept, accepted};
            while (switched == before[0] || slept == before[1] || accepted == before[2]) {
              std::this_thread::yield();
            }
            say("moved on\n");
          }
          over = true;
        });
        while (!over) this_fiber::yield();
        answering.join();
        scope.cancel();
        return scope.join().ok() ? 0 : 2;
      },
      options(kAmple));
}

int workers(int count) {
  Options with = options(kAmple);
  with.workers = count;
  auto runtime = *Runtime::start(with);
  for (int i = 0; i < count; ++i) {
    if (!sched::core_of(*runtime)->worker(i).thread().raw_clone()) {
      std::puts("fallback");
      break;
    }
  }
  return runtime->stop().ok() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  const rlimit no_core = {0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  const std::string how = argc > 1 ? argv[1] : "";
  const std::string more = argc > 2 ? argv[2] : "";
  const std::string where = argc > 3 ? argv[3] : "main";
  if (how == "overflow") return overflow();
  if (how == "lost_exception") return lost_exception();
  if (how == "hanging_run") return hanging_run();
  if (how == "hanging_destructor") return hanging_destructor();
  if (how == "static_runtime") return static_runtime(more == "idle" ? nullptr : &kSwitching);
  if (how == "static_group") return static_group();
  if (how == "misuse") return misuse(more);
  if (how == "stopped_again_and_again") return stopped_again_and_again();
  if (how == "workers") return workers(std::atoi(more.c_str()));
  const Load& load = more == "spinning" ? kSpinning : kSwitching;
  return where == "fiber" ? end_from_fiber(how, load) : end_from_main(how, load);
}
