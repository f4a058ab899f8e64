// Starting and joining. The order of a batch, which must not be changed:
//
//   1 all threads are created; each clones itself anew and its old kernel thread then waits
//   2 the grace period: one pass through the lock that setuid() holds (GracePeriod)
//   3 all old kernel threads are sent away; a thread whose credentials differ from its old one's is
//     ended, and 1 to 3 are repeated for it
//   4 when all are ready: their functions
//
// One start at a time, under a mutex that fork() takes as well: a child that was forked between 1
// and 3 would inherit the word `phase` but nobody to write it.

#include "runtime/os/kernel_thread.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <mutex>

#include <sys/mman.h>

#include "runtime/base/check.h"
#include "runtime/os/futex.h"
#include "runtime/os/memory.h"
#include "runtime/os/system.h"

// Of the leak sanitizer, which knows an adopted thread by its old id only and so would not find
// what its stack and its TLS point to. Weak: without the sanitizer they are null.
extern "C" {  // NOLINTBEGIN(bugprone-reserved-identifier, readability-identifier-naming): its names
[[gnu::weak]] void __lsan_register_root_region(const void* begin, std::size_t bytes);
[[gnu::weak]] void __lsan_unregister_root_region(const void* begin, std::size_t bytes);
}  // NOLINTEND(bugprone-reserved-identifier, readability-identifier-naming)

namespace weft::os {
namespace {

constexpr std::size_t kGuardBytes = kPageBytes;
constexpr std::size_t kStackBytesMin = 64 << 10;
// Where the doubling ends: a static TLS that does not fit here means something else.
constexpr std::size_t kStackBytesMax = 64 << 20;
constexpr int kRoundsMax = 100;

// Held while a batch starts and while the process forks.
std::mutex starting;

// Returns 0 or a negative errno.
int hold_forks_during_starts() {
  static const int error =
      pthread_atfork([] { starting.lock(); }, [] { starting.unlock(); }, [] { starting.unlock(); });
  return -error;
}

// One pass through the lock under which setuid() reads thread ids and waits for answers: the end of
// a thread passes it, in pthread_join. The thread is made first, where failing is still harmless.
class GracePeriod {
 public:
  // Returns 0, or a negative errno when there can be no grace period.
  int prepare() {
    const int error = pthread_create(&thread_, nullptr, wait_for_end, this);
    prepared_ = error == 0;
    return -error;
  }

  void pass() {
    if (!prepared_) return;
    over_.store(1, std::memory_order_relaxed);  // relaxed: it publishes nothing
    futex_wake(over_, 1);
    pthread_join(thread_, nullptr);
  }

 private:
  static void* wait_for_end(void* self) {
    const auto& over = static_cast<GracePeriod*>(self)->over_;
    while (over.load(std::memory_order_relaxed) == 0) futex_wait(over, 0);  // relaxed: as in pass()
    return nullptr;
  }

  base::Atomic<std::uint32_t> over_{0};
  pthread_t thread_{};
  bool prepared_ = false;
};

}  // namespace

// Starts the threads of one batch, in rounds.
class StartBatch {
 public:
  explicit StartBatch(std::span<const ThreadStart> starts) : starts_(starts) {}

  int run() {
    int error = 0;
    bool complete = false;
    for (int round = 0; round < kRoundsMax && error == 0 && !complete; ++round) {
      error = launch_missing();
      complete = error == 0 && end_stale();
    }
    if (error == 0 && !complete) error = -EAGAIN;
    for_each([error](KernelThread& thread) { error == 0 ? thread.run() : thread.quit(); });
    return error;
  }

 private:
  // Steps 1 to 3 for every thread that is not running yet.
  int launch_missing() {
    GracePeriod grace;
    const bool adopting = std::any_of(starts_.begin(), starts_.end(), [](const ThreadStart& start) {
      return start.options.kind == ThreadKind::kRawClone;
    });
    const int grace_error = adopting ? grace.prepare() : 0;
    int error = 0;
    for (const ThreadStart& start : starts_) {
      if (start.thread->mapping_ != nullptr) continue;
      error = start.thread->launch(start, grace_error);
      if (error != 0) break;
    }
    for_each([](KernelThread& thread) { thread.await_past(Handover::kStarting); });
    grace.pass();
    for_each([](KernelThread& thread) {
      // acquire: [handover] pairs with leaving().
      if (thread.handover_.phase.load(std::memory_order_acquire) != Handover::kMoved) return;
      thread.give(Handover::kLeave);
    });
    for_each([](KernelThread& thread) { thread.await_past(Handover::kMoved); });
    return error;
  }

  // Returns whether there was none.
  bool end_stale() {
    bool none = true;
    for_each([&none](KernelThread& thread) {
      // acquire: [handover] pairs with the store in main().
      if (thread.handover_.phase.load(std::memory_order_acquire) != Handover::kStale) return;
      thread.end();
      ++thread.restarts_;
      none = false;
    });
    return none;
  }

  template <class Action>
  void for_each(Action action) {
    for (const ThreadStart& start : starts_) {
      if (start.thread->mapping_ != nullptr) action(*start.thread);
    }
  }

  std::span<const ThreadStart> starts_;
};

KernelThread::~KernelThread() {
  WEFT_CHECK(mapping_ == nullptr, "a kernel thread was destroyed before it was joined");
}

int KernelThread::start(Function function, void* argument, const KernelThreadOptions& options) {
  const ThreadStart only{this, function, argument, options};
  return start_all({&only, 1});
}

int KernelThread::start_all(std::span<const ThreadStart> starts) {
  for (const ThreadStart& start : starts) {
    WEFT_CHECK(start.thread->mapping_ == nullptr, "a kernel thread was started twice");
    start.thread->restarts_ = 0;
  }
  if (int error = hold_forks_during_starts(); error != 0) return error;
  std::lock_guard lock(starting);
  return StartBatch(starts).run();
}

void KernelThread::join() {
  WEFT_CHECK(mapping_ != nullptr, "join of a kernel thread that was not started");
  pthread_join(thread_, nullptr);
  if (raw_clone_ && __lsan_unregister_root_region != nullptr) {
    __lsan_unregister_root_region(mapping_ + kGuardBytes, stack_bytes_);
  }
  unmap_stack();
}

int KernelThread::launch(const ThreadStart& start, int grace_error) {
  function_ = start.function;
  argument_ = start.argument;
  kind_ = start.options.kind;
  std::strncpy(name_.data(), start.options.name.c_str(), name_.size() - 1);
  raw_clone_ = false;
  fallback_step_ = nullptr;
  fallback_errno_ = 0;
  if (kind_ == ThreadKind::kRawClone && grace_error != 0) {
    kind_ = ThreadKind::kPlain;
    fallback_step_ = "pthread_create for the grace period";
    fallback_errno_ = -grace_error;
  }
  // relaxed: the thread that will share these words does not exist yet.
  handover_.phase.store(Handover::kStarting, std::memory_order_relaxed);
  handover_.order.store(Handover::kHold, std::memory_order_relaxed);

  std::size_t stack_bytes = std::max(start.options.stack_bytes, kStackBytesMin);
  while (true) {
    if (int error = map_stack(stack_bytes); error != 0) return error;
    const int error = create();
    if (error == 0) return 0;
    unmap_stack();
    // EINVAL: the static TLS does not fit, which with gcc's ThreadSanitizer needs megabytes.
    if (error != -EINVAL || stack_bytes >= kStackBytesMax) return error;
    stack_bytes *= 2;
  }
}

int KernelThread::map_stack(std::size_t stack_bytes) {
  stack_bytes_ = (stack_bytes + kPageBytes - 1) & ~(kPageBytes - 1);
  const long mapped = system::mmap(nullptr, kGuardBytes + stack_bytes_, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (mapped < 0) return static_cast<int>(mapped);
  auto* const mapping = reinterpret_cast<std::byte*>(mapped);
  if (int error = system::mprotect(mapping, kGuardBytes, PROT_NONE); error < 0) {
    system::munmap(mapping, kGuardBytes + stack_bytes_);
    return error;
  }
  mapping_ = mapping;
  return 0;
}

void KernelThread::unmap_stack() {
  system::munmap(mapping_, kGuardBytes + stack_bytes_);
  mapping_ = nullptr;
}

int KernelThread::create() {
  pthread_attr_t attributes;
  int error = pthread_attr_init(&attributes);
  if (error != 0) return -error;
  error = pthread_attr_setstack(&attributes, mapping_ + kGuardBytes, stack_bytes_);
  if (error == 0) {
    const auto entry = [](void* self) -> void* {
      static_cast<KernelThread*>(self)->main();
      return nullptr;
    };
    error = pthread_create(&thread_, &attributes, entry, this);
  }
  pthread_attr_destroy(&attributes);
  return -error;
}

void KernelThread::await_past(Handover::Phase phase) {
  // acquire: [handover] pairs with leaving() and with main(): sees the thread's result.
  while (handover_.phase.load(std::memory_order_acquire) == phase) {
    futex_wait(handover_.phase, phase);
  }
}

void KernelThread::give(Handover::Order order) {
  // release: [handover] pairs with leaving() and main(): what the starter did first is visible to
  // the function.
  handover_.order.store(order, std::memory_order_release);
  futex_wake(handover_.order, 1);
}

void KernelThread::run() {
  if (raw_clone_ && __lsan_register_root_region != nullptr) {
    __lsan_register_root_region(mapping_ + kGuardBytes, stack_bytes_);
  }
  give(Handover::kRun);
}

void KernelThread::quit() {
  give(Handover::kQuit);
  end();
}

void KernelThread::end() {
  pthread_join(thread_, nullptr);
  unmap_stack();
}

void KernelThread::main() {
  pthread_setname_np(pthread_self(), name_.data());
  sigset_t broken_pipe;
  sigemptyset(&broken_pipe);
  sigaddset(&broken_pipe, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &broken_pipe, nullptr);

  Handover::Phase phase = Handover::kReady;
  if (kind_ == ThreadKind::kRawClone) {
    const Adoption adoption =
        adopt_current_thread(handover_, mapping_ + kGuardBytes + kBootStackBytes);
    raw_clone_ = adoption.outcome == Adoption::Outcome::kAdopted;
    fallback_step_ = adoption.step;
    fallback_errno_ = adoption.error;
    if (adoption.outcome == Adoption::Outcome::kStale) phase = Handover::kStale;
  }
  // release: [handover] publishes the result; pairs with the starter's await_past().
  handover_.phase.store(phase, std::memory_order_release);
  futex_wake(handover_.phase, 1);
  if (phase == Handover::kStale) return;

  while (true) {
    // acquire: [handover] pairs with give().
    const std::uint32_t order = handover_.order.load(std::memory_order_acquire);
    if (order == Handover::kQuit) return;
    if (order == Handover::kRun) break;
    futex_wait(handover_.order, order);
  }
  function_(argument_);
}

}  // namespace weft::os
