// <weft/runtime.h> over Core: starting, draining, stopping, and the signals of run().
#include <weft/runtime.h>
#include <weft/time.h>

#include <cerrno>
#include <cstdio>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <thread>

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "runtime/base/check.h"
#include "runtime/base/plant.h"
#include "runtime/os/clock.h"
#include "runtime/sched/core.h"
#include "runtime/sched/process.h"
#include "runtime/sched/status.h"
#include "runtime/sched/worker.h"

namespace weft {

struct Runtime::State {
  explicit State(std::unique_ptr<sched::Core> started) : core(std::move(started)) {}
  std::unique_ptr<sched::Core> core;
};

Runtime::Runtime(std::unique_ptr<State> state) : state_(std::move(state)) {}

absl::StatusOr<std::unique_ptr<Runtime>> Runtime::start(const Options& options) {
  absl::StatusOr<std::unique_ptr<sched::Core>> core = sched::Core::start(options);
  if (!core.ok()) return core.status();
  return std::unique_ptr<Runtime>(new Runtime(std::make_unique<State>(*std::move(core))));
}

namespace {

[[noreturn]] void give_up(sched::Core& core) {
  std::string text = "weft: clean-up hangs; these fibers do not end:\n" + core.dump_fibers();
  if (write(STDERR_FILENO, text.data(), text.size()) < 0) _exit(70);
  _exit(70);
}

std::int64_t deadline_after(absl::Duration duration) {
  return Deadline::in(duration).nanoseconds();
}

}  // namespace

Runtime::~Runtime() {
  if (state_->core == nullptr) return;
  const sched::Worker* worker = sched::current_worker();
  if (worker != nullptr && &worker->core() == state_->core.get()) {
    // On one of its own fibers, which could not end while it waits for its end: another thread does it.
    State* state = state_.release();
    try {
      std::thread([state] { const Runtime last{std::unique_ptr<State>(state)}; }).detach();
    } catch (const std::exception& error) {
      state->core->log(LogLevel::kError,
                       std::string("a runtime that one of its fibers destroys needs a thread: ") +
                           error.what() + "; it is left as it is");
    }
  } else if (!stop().ok()) {
    give_up(*state_->core);
  }
}

FiberGroup& Runtime::root() { return state_->core->public_root(); }

void Runtime::drain() { state_->core->drain(); }

absl::Status Runtime::stop() {
  if (state_->core == nullptr) return absl::OkStatus();
  if (sched::is_exiting()) {
    static_cast<void>(state_->core.release());  // its workers stand on it until the process is gone
    return absl::OkStatus();
  }
  sched::Core& core = *state_->core;
  const sched::Worker* worker = sched::current_worker();
  if (worker != nullptr && &worker->core() == &core) {
    return absl::FailedPreconditionError(
        "stop: a runtime cannot be ended by one of its own fibers");
  }
  core.drain();
  if (!core.wait_until_empty(deadline_after(core.options().drain))) {
    core.cancel_all();
    if (!core.wait_until_empty(deadline_after(core.options().shutdown_limit))) {
      return absl::DeadlineExceededError("stop: fibers do not end:\n" + core.dump_fibers());
    }
  }
  state_->core.reset();
  return absl::OkStatus();
}

Metrics Runtime::metrics() const { return state_->core->metrics(); }

FiberGroup& background() {
  sched::Worker* worker = sched::current_worker();
  WEFT_CHECK(worker != nullptr,
             "background() is the group of the current runtime: there is none here");
  return worker->core().public_root();
}

bool draining() {
  sched::Worker* worker = sched::current_worker();
  return worker != nullptr && worker->core().draining();
}

namespace internal {
namespace {

// Written by the handlers, polled by the thread that called run().
int signal_eventfd = -1;

void on_signal(int) {
  const int error = errno;
  const std::uint64_t one = 1;
  if (write(signal_eventfd, &one, sizeof one) < 0) errno = error;
  errno = error;
}

// SIGTERM and SIGINT for the time of a run(); the old dispositions come back afterwards.
class SignalHandlers {
 public:
  SignalHandlers() {
    struct sigaction action {};
    action.sa_handler = &on_signal;
    action.sa_flags = SA_RESTART | SA_ONSTACK;
    sigaction(SIGTERM, &action, &term_);
    sigaction(SIGINT, &action, &interrupt_);
  }
  ~SignalHandlers() {
    sigaction(SIGTERM, &term_, nullptr);
    sigaction(SIGINT, &interrupt_, nullptr);
  }
  SignalHandlers(const SignalHandlers&) = delete;
  SignalHandlers& operator=(const SignalHandlers&) = delete;

 private:
  struct sigaction term_;
  struct sigaction interrupt_;
};

struct Events {
  bool body_ended = false;
  std::uint64_t signals = 0;
};

// Sleeps until one of the two eventfds says something, or the deadline is over.
Events wait_for_events(int ended_fd, int signals_fd, std::int64_t deadline_ns) {
  Events events;
  pollfd waiting[2] = {{ended_fd, POLLIN, 0}, {signals_fd, POLLIN, 0}};
  const std::int64_t now = os::now_ns();
  int timeout = -1;
  if (deadline_ns != os::kNever) {
    timeout = deadline_ns <= now ? 0 : static_cast<int>((deadline_ns - now) / 1'000'000 + 1);
  }
  const int ready = poll(waiting, 2, timeout);
  if (base::planted(78) && ready < 0) events.signals = 1;
  if (ready <= 0) return events;
  events.body_ended = (waiting[0].revents & POLLIN) != 0;
  if ((waiting[1].revents & POLLIN) != 0 &&
      read(signals_fd, &events.signals, sizeof events.signals) < 0) {
    events.signals = 0;
  }
  return events;
}

struct Descriptor {
  int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

// Returns when the body has ended; drains at the first signal, cancels at the second or when the time
// to drain is over, and gives up when the time to end is.
void supervise(sched::Core& core, int ended_fd, int signals_fd) {
  std::uint64_t signals = 0;
  bool cancelled = false;
  std::int64_t deadline_ns = os::kNever;
  while (true) {
    const Events events = wait_for_events(ended_fd, signals_fd, deadline_ns);
    if (events.body_ended) return;
    const bool late = os::now_ns() >= deadline_ns;
    if (late && cancelled) give_up(core);
    const bool first = signals == 0 && events.signals != 0;
    signals += events.signals;
    if (first && signals == 1) {
      core.drain();
      deadline_ns = deadline_after(core.options().drain);
    } else if ((signals > 1 || late) && !cancelled) {
      core.drain();
      core.cancel_all();
      cancelled = true;
      deadline_ns = deadline_after(core.options().shutdown_limit);
    }
  }
}

}  // namespace

EndSignal::~EndSignal() {
  const std::uint64_t one = 1;
  if (eventfd_ >= 0 && write(eventfd_, &one, sizeof one) < 0) std::perror("weft: eventfd");
}

int run_body(const Options& options,
             const std::function<Fiber<absl::Status>(FiberGroup&, EndSignal)>& spawn_body,
             const std::function<int(const absl::Status&)>& exit_code) {
  const bool handle_signals = options.handle_signals;
  absl::StatusOr<std::unique_ptr<Runtime>> runtime = Runtime::start(options);
  if (!runtime.ok()) {
    std::fprintf(stderr, "weft: cannot start: %s\n", runtime.status().ToString().c_str());
    return 1;
  }
  Descriptor ended;
  Descriptor signals;
  if (ended.fd < 0 || signals.fd < 0) {
    std::fprintf(stderr, "weft: cannot start: %s\n",
                 sched::errno_status("eventfd", errno).ToString().c_str());
    return 1;
  }
  signal_eventfd = signals.fd;
  std::optional<SignalHandlers> handlers;
  if (handle_signals) handlers.emplace();

  std::optional<FiberGroup> group;
  group.emplace(**runtime, ScopeOptions{.name = "main", .on_error = OnError::kKeepGoing});
  Fiber<absl::Status> body = spawn_body(*group, EndSignal(ended.fd));
  sched::Core& core = *sched::core_of(**runtime);
  supervise(core, ended.fd, signals.fd);
  absl::Status status = body.join();  // its closure has ended: it is about to
  if (!status.ok()) std::fprintf(stderr, "weft: %s\n", status.ToString().c_str());
  const int code = exit_code(status);
  static_cast<void>(group->join());  // the same error again: it has been seen
  group.reset();
  runtime->reset();  // drains, cancels, and gives up on what does not end
  return code;
}

}  // namespace internal

namespace sched {

Core* core_of(Runtime& runtime) { return runtime.state_->core.get(); }

}  // namespace sched
}  // namespace weft
