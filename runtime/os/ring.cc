#include "runtime/os/ring.h"

#include <algorithm>
#include <cerrno>

#include <poll.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/syscall.h"
#include "runtime/base/plant.h"
#include "runtime/os/system.h"

namespace weft::os {
namespace {

// In the headers of newer kernels only.
constexpr unsigned kEnterNoIowait = 1u << 7;  // IORING_ENTER_NO_IOWAIT, Linux 6.15
constexpr unsigned kFeatureNoIowait = 1u << 17;

constexpr unsigned kSetupFlags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                                 IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL |
                                 IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE;

}  // namespace

int Ring::open(const RingOptions& options) {
  unsigned submission = options.submission_entries;
  unsigned completion = options.completion_entries;
  int result = -ENOMEM;
  failed_step_ = "io_uring_setup";
  // Rings count as locked memory since Linux 6.14: smaller ones may still fit.
  for (int attempt = 0; attempt < 4 && result == -ENOMEM; ++attempt) {
    io_uring_params parameters{};
    parameters.flags = kSetupFlags;
    parameters.cq_entries = completion;
    result = system::internal::fault(system::Call::kIoUringSetup);
    if (result == 0) result = io_uring_queue_init_params(submission, &ring_, &parameters);
    completion /= 2;
    if (completion < 2 * submission) submission /= 2;
  }
  if (result < 0) return result;
  system::after_mapping();  // liburing maps the queues itself
  open_ = true;
  waits_in_poll_ = arch::under_valgrind();

  failed_step_ = "io_uring_register";
  result = system::internal::fault(system::Call::kIoUringRegister);
  if (result == 0) result = io_uring_register_ring_fd(&ring_);
  if (result >= 0) {
    if constexpr (!base::planted(67)) io_uring_ring_dontfork(&ring_);
    failed_step_ = "io_uring_enter";  // a seccomp profile may allow the set-up and refuse this
    result = round_trip();
  }
  if (result < 0) close();
  return result < 0 ? result : 0;
}

void Ring::close() {
  if (!open_) return;
  system::before_unmapping();
  io_uring_queue_exit(&ring_);
  open_ = false;
}

// The kernel keeps the registered descriptor with the thread: closing from another one would take
// back that thread's entry of the same number.
void Ring::detach() {
  if (open_) io_uring_unregister_ring_fd(&ring_);
}

int Ring::round_trip() {
  io_uring_sqe* sqe = next_sqe();
  if (sqe == nullptr) return -EBUSY;
  io_uring_prep_nop(sqe);
  const int result = enter(Wait::kYes, kNever, 0);
  if (result < 0) return result;
  if (peek() == nullptr) return -EIO;
  seen();
  return 0;
}

io_uring_sqe* Ring::next_sqe() {
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  if (__builtin_expect(sqe == nullptr, 0)) {
    enter(Wait::kNo, kNever, 0);
    sqe = io_uring_get_sqe(&ring_);
  }
  return sqe;
}

// Valgrind runs one thread at a time, and takes io_uring_enter for a call that does not block: it would
// hold its lock over the wait, and nobody else could bring what is waited for. Over a poll it does not. What
// the kernel has deferred does not end a poll of the ring, so this looks again every few milliseconds.
int Ring::wait_in_poll(std::int64_t left_ns) {
  constexpr std::int64_t kLookAgainNs = 5'000'000;
  if (const int result = enter(Wait::kNo, kNever, 0); result < 0) return result;
  pollfd ring{ring_.ring_fd, POLLIN, 0};
  timespec timeout{0, std::min(left_ns, kLookAgainNs)};
  const long ready = arch::syscall(SYS_ppoll, &ring, 1, &timeout, nullptr, 0);
  if (ready < 0) return static_cast<int>(ready);
  return enter(Wait::kNo, kNever, 0);  // runs the deferred completions
}

int Ring::enter(Wait wait, std::int64_t deadline_ns, std::int64_t now_ns) {
  if (wait == Wait::kYes && __builtin_expect(waits_in_poll_, 0)) {
    const std::int64_t left = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
    return wait_in_poll(deadline_ns == kNever ? kNever : left);
  }
  io_uring_sq& queue = ring_.sq;
  const unsigned tail = queue.sqe_tail;
  queue.sqe_head = tail;
  __atomic_store_n(queue.ktail, tail, __ATOMIC_RELEASE);  // publishes the entries to the kernel
  const unsigned count = tail - *queue.khead;
  if (int error = system::internal::fault(system::Call::kIoUringEnter)) return error;
  ++enters_;

  unsigned flags = IORING_ENTER_GETEVENTS | IORING_ENTER_REGISTERED_RING;
  const unsigned minimum = wait == Wait::kYes ? 1 : 0;
  if (minimum != 0 && (ring_.features & kFeatureNoIowait) != 0) flags |= kEnterNoIowait;
  const int fd = ring_.enter_ring_fd;
  long result;
  if (minimum == 0 || deadline_ns == kNever) {
    result = arch::syscall(SYS_io_uring_enter, fd, count, minimum, flags, nullptr, 0);
  } else {
    const std::int64_t left = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
    __kernel_timespec timeout{left / 1'000'000'000, left % 1'000'000'000};
    io_uring_getevents_arg argument{};
    argument.ts = reinterpret_cast<std::uint64_t>(&timeout);
    result = arch::syscall(SYS_io_uring_enter, fd, count, minimum, flags | IORING_ENTER_EXT_ARG,
                           &argument, sizeof argument);
  }
  return result < 0 ? static_cast<int>(result) : 0;
}

}  // namespace weft::os
