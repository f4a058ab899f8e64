// The runtime: starts workers, runs a body as the first fiber, ends in order.
//
//   int main() {
//     return weft::run([]() -> absl::Status {
//       auto listener = weft::TcpListener::bind("127.0.0.1:7000");
//       if (!listener.ok()) return listener.status();
//       return weft::serve(*listener, echo);
//     });                                                  // SIGTERM drains, then cancels
//   }
//
// The end of run(): the body returned or SIGTERM came; drain (listeners stop, draining() is true, reads
// under EndOnDrain return); after Options::drain cancel everything; after Options::shutdown_limit print
// all fibers and _exit(70). A second signal cancels at once.
//
// Requires: capabilities, and seccomp filters without SECCOMP_FILTER_FLAG_TSYNC, are the calling
// thread's alone: they are given up before a runtime starts. setuid() and its relatives reach all workers
// at any time. A fiber belongs to one runtime. While stop() runs, nobody outside the runtime spawns into
// its groups.
// Promises: main's thread is never a worker. Start and stop can be repeated without a trace.
#pragma once

#include <weft/fiber.h>
#include <weft/scope.h>
#include <weft/status.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>

namespace weft::sched {
class Core;
Core* core_of(Runtime& runtime);
}  // namespace weft::sched

namespace weft {

enum class Engine { kAuto, kUring };
enum class LogLevel { kInfo, kWarning, kError };

struct Options {
  int workers = 0;                     // 0: min(affinity mask, ceil(cgroup CPU quota)), at least 1
  std::size_t stack_size = 256 << 10;  // a power of two from 16 KiB up; counts the guard
  Engine engine = Engine::kAuto;
  bool raw_clone = true;       // false, or where it cannot be had: plain threads, one log line
  bool shuffle_wakes = false;  // tests: every wake moves the fiber to another worker
  bool handle_signals = true;  // run() only: SIGTERM, SIGINT drain, a second one cancels
  absl::Duration drain = absl::Seconds(10);
  absl::Duration shutdown_limit = absl::Seconds(5);
  absl::Duration timer_slack = absl::Milliseconds(1);  // late by at most min(this, wait / 50)
  std::size_t prewarm = 0;  // stacks and control blocks touched before the first spawn
  std::function<void(LogLevel, std::string_view)> log = {};  // default: stderr, warnings and worse
};

struct Metrics {
  std::uint64_t fibers = 0;  // alive now
  std::uint64_t spawned = 0;
  std::uint64_t switches = 0;
  std::uint64_t steals = 0;          // fibers that another worker took
  std::uint64_t sleeps = 0;          // times that a worker slept
  std::uint64_t kernel_entries = 0;  // of all I/O drivers
  std::uint64_t operations = 0;      // in flight now
  std::uint64_t stacks = 0;          // in use now, or warm on a worker
};

class Runtime {
 public:
  // Never parks; blocks until all workers run. kInvalidArgument for bad options; otherwise the error of
  // the step that failed. Call from: any thread that is not a fiber.
  static absl::StatusOr<std::unique_ptr<Runtime>> start(const Options& options = {});
  // stop(); where that would say kDeadlineExceeded: all fibers are printed, then _exit(70).
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  // For detached work: kKeepGoing, and an error is logged. Call from: any thread.
  FiberGroup& root();

  // Runs `body` as a fiber of the root group and waits for its result; rethrows its exception.
  // Call from: a thread that is not a fiber. Blocks.
  template <class F>
  Joined<std::invoke_result_t<F>> block_on(F&& body) {
    return root().spawn(std::forward<F>(body), {.name = "main"}).join();
  }

  // Begins to drain. Call from: any thread. Never parks.
  void drain();
  // Drains, cancels, waits, ends the workers; as SIGTERM, but kDeadlineExceeded where run() would end
  // the process; it may then be called again. Call from: a thread that is not a fiber. Blocks.
  absl::Status stop();

  // Call from: any thread. Never parks.
  Metrics metrics() const;

 private:
  friend sched::Core* sched::core_of(Runtime& runtime);
  struct State;
  explicit Runtime(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Of the current runtime. Call from: a fiber.
FiberGroup& background();
// Whether the current runtime drains. Call from: a fiber; false elsewhere. Never parks.
bool draining();

namespace internal {

// Tells the thread in run() of its end. Part of the body's closure, which ends even if no stack can be
// had for it.
class EndSignal {
 public:
  explicit EndSignal(int eventfd) : eventfd_(eventfd) {}
  EndSignal(EndSignal&& other) noexcept : eventfd_(std::exchange(other.eventfd_, -1)) {}
  ~EndSignal();
  EndSignal& operator=(EndSignal&&) = delete;

 private:
  int eventfd_;
};

// The signal and shutdown side of run(): starts a runtime, calls spawn_body with a group of it, waits,
// stops. The group is not the root, which would log the error that is printed here.
int run_body(const Options& options,
             const std::function<Fiber<absl::Status>(FiberGroup&, EndSignal)>& spawn_body,
             const std::function<int(const absl::Status&)>& exit_code);

}  // namespace internal

// Runs `body` as the first fiber, of a new runtime, and returns main's result: 0 for void and an OK
// status, the number for an int; an error is printed and gives 1. An exception of the body is rethrown.
// Call from: main, or any thread that is not a fiber. Blocks.
template <class F>
int run(F&& body, const Options& options = {}) {
  using T = std::invoke_result_t<F>;
  int number = 0;
  auto as_status = [&]() -> absl::Status {
    if constexpr (std::is_void_v<T>) {
      body();
      return absl::OkStatus();
    } else if constexpr (std::is_convertible_v<T, int> && !std::is_same_v<T, absl::Status>) {
      number = static_cast<int>(body());
      return absl::OkStatus();
    } else {
      return body();
    }
  };
  return internal::run_body(
      options,
      [&as_status](FiberGroup& group, internal::EndSignal end) {
        return group.spawn([&as_status, end = std::move(end)] { return as_status(); },
                           {.name = "main"});
      },
      [&number](const absl::Status& status) { return status.ok() ? number : 1; });
}

}  // namespace weft
