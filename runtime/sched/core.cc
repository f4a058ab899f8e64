#include "runtime/sched/core.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <span>

#include <pthread.h>
#include <sys/uio.h>
#include <unistd.h>

#include "runtime/base/check.h"
#include "runtime/base/plant.h"
#include "runtime/base/spin_lock.h"
#include "runtime/os/cpus.h"
#include "runtime/os/futex.h"
#include "runtime/sched/fiber_life.h"
#include "runtime/sched/overflow.h"
#include "runtime/sched/process.h"
#include "runtime/sched/status.h"
#include "runtime/sched/worker.h"

namespace weft::sched {
namespace {

constexpr std::int64_t kMillisecondNs = 1'000'000;

// The runtimes alive, by number. [runtimes] A fiber's number names its runtime for as long as it lives.
base::Atomic<Core*> runtimes[Core::kRuntimesMax];
base::SpinLock runtimes_lock;

int free_number() {
  for (unsigned i = 0; i < Core::kRuntimesMax; ++i) {
    // relaxed: under the lock.
    if (runtimes[i].load(std::memory_order_relaxed) == nullptr) return static_cast<int>(i);
  }
  return -1;
}

absl::Status check_options(const Options& options) {
  if (options.workers < 0 || options.workers > Core::kWorkersMax) {
    return absl::InvalidArgumentError("Options::workers must be 0 (automatic) to 1024");
  }
  if (options.stack_size == 0)
    return absl::InvalidArgumentError("Options::stack_size must not be 0");
  return validate_stack_bytes(options.stack_size);
}

std::size_t describe_stack_owner(void* owner, char* text, std::size_t size) {
  return describe(*static_cast<FiberBlock*>(owner), text, size);
}

Options resolved(Options options) {
  if (options.workers == 0) options.workers = os::usable_cpus();
  if (base::kAsan) options.stack_size *= 4;  // red zones and fake frames
  return options;
}

}  // namespace

Core::Core(const Options& options, int workers, unsigned number)
    : options_(options),
      number_(number),
      may_spin_(workers <= os::affinity_cpus()),
      stacks_({.default_bytes = options.stack_size,
               .prewarm = options.prewarm,
               .frame_bytes = sizeof(FiberFrame)}),
      idle_(workers),
      all_(this, nullptr, {.name = "all", .keep_going = true}),
      root_(FiberGroup::Root{}, *this),
      started_(static_cast<unsigned>(workers)) {
  for (int i = 0; i < workers; ++i) workers_.push_back(std::make_unique<Worker>(*this, i));
}

Core::~Core() {
  stop_workers();
  // relaxed: nobody else is left; a visitor is a thread that has not yet come out of ring().
  while (!base::planted(68) && visitors_.load(std::memory_order_acquire) != 0) base::spin_hint();
  workers_.clear();
  all_.orphan_subgroups();
  std::lock_guard hold(runtimes_lock);
  runtimes[number_].store(nullptr, std::memory_order_release);  // [runtimes]
}

absl::StatusOr<std::unique_ptr<Core>> Core::start(const Options& wanted) {
  if (is_forked_child()) {
    return absl::FailedPreconditionError("a forked child may only exec or _exit: no runtime here");
  }
  if (absl::Status status = check_options(wanted); !status.ok()) return status;
  prepare_process();
  const Options options = resolved(wanted);
  std::unique_ptr<Core> core;
  {
    std::lock_guard hold(runtimes_lock);
    const int number = free_number();
    if (number < 0)
      return absl::ResourceExhaustedError("at most 64 runtimes may be alive at a time");
    core.reset(new Core(options, options.workers, static_cast<unsigned>(number)));
    runtimes[number].store(core.get(), std::memory_order_release);  // [runtimes]
  }
  if (absl::Status status = core->stacks_.prewarm(); !status.ok()) return status;
  if (absl::Status status = core->start_workers(); !status.ok()) return status;
  return core;
}

Core& Core::of(const FiberBlock& fiber) {
  return *runtimes[fiber.claim.load().runtime()].load(std::memory_order_acquire);  // [runtimes]
}

Core* Core::at(unsigned number) { return runtimes[number].load(std::memory_order_acquire); }

// ---- Starting and stopping

absl::Status Core::start_workers() {
  std::vector<os::ThreadStart> starts;
  for (auto& worker : workers_) {
    starts.push_back(
        {&worker->thread(),
         [](void* argument) { static_cast<Worker*>(argument)->main(); },
         worker.get(),
         {.name = "weft-" + std::to_string(worker->index()),
          .kind = options_.raw_clone ? os::ThreadKind::kRawClone : os::ThreadKind::kPlain}});
  }
  install_overflow_report(&describe_stack_owner);
  if (int error = os::KernelThread::start_all(starts); error < 0) {
    uninstall_overflow_report();
    return errno_status("starting the kernel threads of the workers", error);
  }
  running_ = true;
  const auto count = static_cast<std::uint32_t>(workers_.size());
  // acquire: pairs with worker_started().
  for (std::uint32_t seen; (seen = started_count_.load(std::memory_order_acquire)) != count;) {
    os::futex_wait(started_count_, seen);
  }
  report_fallbacks();
  for (const absl::Status& status : started_) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

void Core::worker_started(int index, absl::Status status) {
  started_[static_cast<unsigned>(index)] = std::move(status);
  started_count_.fetch_add(1, std::memory_order_release);  // release: the status
  os::futex_wake(started_count_, 1);
}

void Core::worker_stopped() {
  stopped_count_.fetch_add(1, std::memory_order_release);
  os::futex_wake(stopped_count_, 1);
  // exit() waits for static destructors to run: what this thread still touches must stay.
  while (exiting_.load(std::memory_order_acquire)) pause();
}

bool Core::hold_workers(std::int64_t deadline_ns) {
  exiting_.store(true, std::memory_order_seq_cst);
  stopping_.store(true, std::memory_order_seq_cst);  // [sleep] then ring
  Ringer ringer{*this};
  idle_.ring_all(ringer);
  Worker* self = current_worker();
  const bool ours = self != nullptr && &self->core() == this;
  const auto wanted = static_cast<std::uint32_t>(workers_.size()) - (ours ? 1 : 0);
  for (std::uint32_t seen; (seen = stopped_count_.load(std::memory_order_acquire)) < wanted;) {
    if (os::futex_wait_until(stopped_count_, seen, deadline_ns) == -ETIMEDOUT) return false;
  }
  return true;
}

void Core::report_fallbacks() {
  for (auto& worker : workers_) {
    const os::KernelThread& thread = worker->thread();
    if (!options_.raw_clone || thread.raw_clone()) continue;
    log(LogLevel::kWarning,
        std::string("fallback: plain threads instead of raw clone: ") +
            (thread.fallback_step() != nullptr ? thread.fallback_step() : "adoption") +
            " failed with " + errno_status("errno", thread.fallback_errno()).ToString());
    return;  // once for all
  }
}

void Core::stop_workers() {
  if (!running_) return;  // a start that failed before there was a thread
  stopping_.store(true, std::memory_order_seq_cst);  // [sleep] then ring
  Ringer ringer{*this};
  idle_.ring_all(ringer);
  for (auto& worker : workers_) worker->thread().join();
  uninstall_overflow_report();
}

void Core::Ringer::ring(int worker) {
  core.events().note(Event::kRing, 0, worker);
  core.worker(worker).driver().ring_doorbell();
}

// The caller's log.
EventLog& Core::events() {
  if constexpr (!kEvents) return outside_events_;
  Worker* worker = current_worker();
  return worker != nullptr && &worker->core() == this ? worker->events : outside_events_;
}

// ---- Making runnable from outside

void Core::inject(FiberBlock& fiber) {
  const Visit visit(*this);
  events().note(Event::kInject, fiber.id);
  injection_.push(&fiber);
  if constexpr (base::planted(42)) return;
  Ringer ringer{*this};
  idle_.rung(ringer);
}

void Core::send_ready(FiberBlock& fiber, int worker) {
  const Visit visit(*this);
  events().note(Event::kSend, fiber.id, worker);
  this->worker(worker).push_ready_inbox(fiber);
  Ringer ringer{*this};
  idle_.reach(ringer, worker);
}

void Core::send_message(FiberBlock& fiber, int worker) {
  const Visit visit(*this);
  this->worker(worker).push_message(fiber);
  Ringer ringer{*this};
  idle_.reach(ringer, worker);
}

void Core::arm_outside(Timer& timer, std::int64_t deadline_ns, std::int64_t now_ns) {
  visitors_.fetch_add(1, std::memory_order_acq_rel);
  worker(0).timers().arm_outside(timer, deadline_ns, now_ns);
  Ringer ringer{*this};
  idle_.reach(ringer, 0);
  visitors_.fetch_sub(1, std::memory_order_release);
}

// ---- The end

void Core::drain() {
  // [drain] The flag, then every group under its lock. A fiber is added to its group, under that lock, before
  // it runs: either it is there to be asked, or it sees the flag.
  if (draining_.exchange(true, std::memory_order_seq_cst)) return;
  WakeBatch batch;
  all_.request_all(kDrain, batch);
  batch.deliver();
}

std::uint64_t Core::live() const {
  // Ends before starts: each fiber's start was counted before its end, so equal sums mean that at the
  // moment between the two passes nobody was alive.
  std::uint64_t ended = 0;
  for (auto& worker : workers_) ended += worker->counters.ended.load(std::memory_order_acquire);
  std::uint64_t spawned = spawned_outside_.load(std::memory_order_acquire);
  for (auto& worker : workers_) spawned += worker->counters.spawned.load(std::memory_order_acquire);
  return spawned - ended;
}

void Core::note_end() {
  end_word_.fetch_add(1, std::memory_order_release);
  os::futex_wake(end_word_, 1);
}

bool Core::wait_until_empty(std::int64_t deadline_ns) {
  while (true) {
    const std::uint32_t seen = end_word_.load(std::memory_order_acquire);
    if (live() == 0) return true;
    const std::int64_t now = os::now_ns();
    if (now >= deadline_ns) return false;
    // Not for ever: a fiber that ended just as the drain began did not know that it has to say so.
    os::futex_wait_until(end_word_, seen, std::min(deadline_ns, now + 10 * kMillisecondNs));
  }
}

// ---- Reports

void Core::log(LogLevel level, std::string_view text) const { sched::log(this, level, text); }

void log(const Core* core, LogLevel level, std::string_view text) {
  if (core != nullptr && core->options().log) {
    core->options().log(level, text);
  } else if (level != LogLevel::kInfo) {
    // In one call, so that lines stay whole, and without memory of its own.
    char prefix[] = "weft: ", newline[] = "\n";
    const iovec parts[] = {
        {prefix, sizeof prefix - 1}, {const_cast<char*>(text.data()), text.size()}, {newline, 1}};
    if (writev(STDERR_FILENO, parts, std::size(parts)) < 0) return;  // nobody left to tell
  }
}

std::size_t describe(FiberBlock& fiber, char* text, std::size_t size) {
  const char* name = fiber.traits.has_extras() ? BlockCache::extras_of(&fiber)->name : "";
  const char* file = fiber.file != nullptr ? fiber.file : "?";
  const int length = name[0] != '\0'
                         ? std::snprintf(text, size, "fiber %llu \"%s\" spawned at %s:%u",
                                         static_cast<unsigned long long>(fiber.id), name, file,
                                         static_cast<unsigned>(fiber.traits.line()))
                         : std::snprintf(text, size, "fiber %llu spawned at %s:%u",
                                         static_cast<unsigned long long>(fiber.id), file,
                                         static_cast<unsigned>(fiber.traits.line()));
  return std::min(static_cast<std::size_t>(std::max(length, 0)), size - 1);
}

std::string describe(FiberBlock& fiber) {
  char text[256];
  return {text, describe(fiber, text, sizeof text)};
}

std::string Core::dump_fibers() {
  std::string text;
  BlockCache::for_each([this, &text](FiberBlock& fiber) {
    const ClaimWord::View view = fiber.claim.load();
    if (view.runtime() != number_) return;
    if (view.state() == FiberState::kFree || (fiber.join.load() & FiberBlock::kDone) != 0) return;
    const char* state = view.state() == FiberState::kRunnable ? "new, ready or running"
                        : view.in_ring()                      ? "waiting for I/O"
                                                              : "parked";
    text += describe(fiber) + ": " + state + "\n";
  });
  return text;
}

std::string Core::dump_events() const {
  std::vector<EventRecord> all = outside_events_.last();
  for (const auto& worker : workers_) {
    const std::vector<EventRecord> one = worker->events.last();
    all.insert(all.end(), one.begin(), one.end());
  }
  return print_events(std::move(all));
}

Metrics Core::metrics() const {
  Metrics all;
  all.spawned = spawned_outside_.load(std::memory_order_relaxed);
  for (auto& worker : workers_) {
    const Worker::Counters& one = worker->counters;
    // relaxed: statistics.
    all.spawned += one.spawned.load(std::memory_order_relaxed);
    all.switches += one.switches.load(std::memory_order_relaxed);
    all.steals += one.steals.load(std::memory_order_relaxed);
    all.sleeps += one.sleeps.load(std::memory_order_relaxed);
    all.kernel_entries += one.kernel_entries.load(std::memory_order_relaxed);
    all.operations += one.operations.load(std::memory_order_relaxed);
  }
  all.fibers = live();
  all.stacks = stacks_.usage().out;
  return all;
}

}  // namespace weft::sched
