#include "runtime/sched/uring_driver.h"

#include <algorithm>
#include <cerrno>

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>

#include "arch/x86_64/syscall.h"
#include "runtime/base/check.h"
#include "runtime/base/plant.h"
#include "runtime/os/system.h"
#include "runtime/sched/wake_batch.h"

namespace weft::sched {
namespace {

constexpr std::uint64_t kNobody = 0;
constexpr std::uint64_t kDoorbell = 1;

// While the doorbell could not be armed nobody sleeps longer than this.
constexpr std::int64_t kDeafSleepNs = 10'000'000;

std::uint64_t tag_of(Operation& operation) { return reinterpret_cast<std::uint64_t>(&operation); }

os::system::Call call_of(Operation::Kind kind) {
  using os::system::Call;
  switch (kind) {
    case Operation::Kind::kAccept:
      return Call::kRingAccept;
    case Operation::Kind::kConnect:
      return Call::kRingConnect;
    case Operation::Kind::kReceive:
      return Call::kRingReceive;
    case Operation::Kind::kSend:
      return Call::kRingSend;
  }
  __builtin_unreachable();
}

// A test's fault in place of the request: completes with `error`, as the kernel would say it.
void prepare_failure(io_uring_sqe* sqe, int error) {
  constexpr std::uint32_t kInjectResult = 1;  // IORING_NOP_INJECT_RESULT, Linux 6.10
  io_uring_prep_nop(sqe);
  sqe->rw_flags = kInjectResult;
  sqe->len = static_cast<std::uint32_t>(error);
}

void prepare_request(io_uring_sqe* sqe, const Operation& operation) {
  unsigned length = operation.length;
  if (__builtin_expect(os::system::internal::armed(), 0)) {
    const os::system::Call call = call_of(operation.kind);
    if (const int error = os::system::internal::fault(call)) return prepare_failure(sqe, error);
    length = os::system::internal::shortened(call, length);
  }
  switch (operation.kind) {
    case Operation::Kind::kAccept:
      io_uring_prep_multishot_accept(sqe, operation.fd, nullptr, nullptr, SOCK_CLOEXEC);
      break;
    case Operation::Kind::kConnect:
      io_uring_prep_connect(sqe, operation.fd, static_cast<sockaddr*>(operation.buffer),
                            operation.length);
      break;
    case Operation::Kind::kReceive:
      io_uring_prep_recv(sqe, operation.fd, operation.buffer, length, 0);
      // A look at an empty socket costs more than it brings, unless the last one left something.
      if (!operation.more_data) sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
      break;
    case Operation::Kind::kSend:
      io_uring_prep_send(sqe, operation.fd, operation.buffer, length, MSG_NOSIGNAL | MSG_WAITALL);
      break;
  }
}

}  // namespace

UringDriver::~UringDriver() {
  WEFT_DCHECK(in_flight_ == 0, "a worker ends while operations are in the kernel");
  ring_.close();
  if (doorbell_ >= 0 && !base::planted(49)) os::system::close(doorbell_);
}

int UringDriver::open(const os::RingOptions& options) {
  failed_step_ = "eventfd";
  doorbell_ = os::system::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (doorbell_ < 0) return doorbell_;
  const int result = ring_.open(options);
  failed_step_ = ring_.failed_step();
  if (base::planted(70) && result != 0) doorbell_ = -1;
  if (result == 0) fill_doorbell();
  return result;
}

void UringDriver::prepare(Operation& operation) {
  ++in_flight_;
  operation.cancel_wanted = false;
  if ((!backlog_.empty() && !base::planted(79)) || !fill(operation)) {
    operation.stage = Operation::Stage::kBacklog;
    backlog_.push(&operation);
  }
}

bool UringDriver::fill(Operation& operation) {
  io_uring_sqe* sqe = ring_.next_sqe();
  if (sqe == nullptr) return false;
  prepare_request(sqe, operation);
  sqe->user_data = tag_of(operation);
  operation.position = ring_.position() - 1;
  operation.stage = Operation::Stage::kBatch;
  ++batch_size_;
  return true;
}

bool UringDriver::withdraw(Operation& operation) {
  if (operation.stage == Operation::Stage::kBacklog) {
    base::IntrusiveQueue<Operation, &Operation::next> kept;
    while (Operation* other = backlog_.pop()) {
      if (other != &operation) kept.push(other);
    }
    backlog_ = std::move(kept);
  } else {
    io_uring_sqe* sqe = ring_.unsubmitted(operation.position);
    if (sqe == nullptr || sqe->user_data != tag_of(operation)) return false;
    io_uring_prep_nop(sqe);
    sqe->user_data = kNobody;
  }
  operation.stage = Operation::Stage::kIdle;
  --in_flight_;
  return true;
}

void UringDriver::cancel(Operation& operation) {
  if (operation.cancel_wanted) return;
  operation.cancel_wanted = true;
  // The kernel would look for it in vain as yet: fill_backlog() asks, right behind it.
  if (operation.stage != Operation::Stage::kBacklog) ask_to_end(operation);
}

void UringDriver::ask_to_end(Operation& operation) {
  if (fill_cancel(operation)) return;
  operation.next_cancel = cancels_;
  cancels_ = &operation;
}

bool UringDriver::fill_cancel(Operation& operation) {
  io_uring_sqe* sqe = ring_.next_sqe();
  if (sqe == nullptr) return false;
  io_uring_prep_cancel64(sqe, tag_of(operation), 0);
  sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;  // its own result proves nothing: the operation's will
  sqe->user_data = kNobody;
  ++batch_size_;
  return true;
}

void UringDriver::fill_doorbell() {
  io_uring_sqe* sqe = ring_.next_sqe();
  if (sqe == nullptr) return;
  if (const int error = os::system::internal::fault(os::system::Call::kRingPoll)) {
    prepare_failure(sqe, error);
  } else {
    io_uring_prep_poll_multishot(sqe, doorbell_, POLLIN);
  }
  sqe->user_data = kDoorbell;
  ++batch_size_;
  doorbell_armed_ = true;
}

void UringDriver::fill_backlog() {
  while (cancels_ != nullptr && fill_cancel(*cancels_)) cancels_ = cancels_->next_cancel;
  while (Operation* operation = backlog_.front()) {
    if (!fill(*operation)) return;
    static_cast<void>(backlog_.pop());
    if (operation->cancel_wanted) ask_to_end(*operation);
  }
}

void UringDriver::poll(WakeBatch& batch) { enter(os::Ring::Wait::kNo, os::Ring::kNever, 0, batch); }

void UringDriver::wait(std::int64_t deadline_ns, std::int64_t now_ns, WakeBatch& batch) {
  if (!doorbell_armed_) fill_doorbell();
  if (!doorbell_armed_) deadline_ns = std::min(deadline_ns, now_ns + kDeafSleepNs);
  enter(os::Ring::Wait::kYes, deadline_ns, now_ns, batch);
}

void UringDriver::enter(os::Ring::Wait wait, std::int64_t deadline_ns, std::int64_t now_ns,
                        WakeBatch& batch) {
  if (!backlog_.empty() || cancels_ != nullptr) {
    reap(batch);  // room for what the kernel would not take
    fill_backlog();
    // Not asleep: a part may still be here, and what was reaped wants to run.
    wait = os::Ring::Wait::kNo;
  }
  if (ring_.peek() != nullptr) wait = os::Ring::Wait::kNo;
  // -ETIME and -EINTR end a sleep early, as they should; -EBUSY and -EAGAIN keep the entries: what is
  // reaped now makes room. Nothing else can come from a ring that has proved itself.
  const int result = ring_.enter(wait, deadline_ns, now_ns);
  WEFT_CHECK(result != -EBADR, "io_uring lost a completion: the kernel ran out of memory");
  batch_size_ = ring_.prepared();
  reap(batch);
}

void UringDriver::reap(WakeBatch& batch) {
  while (const io_uring_cqe* completion = ring_.peek()) {
    const io_uring_cqe copy = *completion;
    ring_.seen();
    complete(copy, batch);
  }
}

void UringDriver::complete(const io_uring_cqe& completion, WakeBatch& batch) {
  const bool more = (completion.flags & IORING_CQE_F_MORE) != 0;
  if (completion.user_data <= kDoorbell) {
    if (completion.user_data == kDoorbell && !more) doorbell_armed_ = false;
    return;
  }
  auto& operation = *reinterpret_cast<Operation*>(completion.user_data);
  if (!more) {
    --in_flight_;
    operation.stage = Operation::Stage::kIdle;
    for (Operation** at = &cancels_; *at != nullptr; at = &(*at)->next_cancel) {
      if (*at == &operation) {
        *at = operation.next_cancel;
        break;
      }
    }
  }
  if (operation.completed != nullptr) {
    operation.completed(operation, completion.res, more, batch);
    return;
  }
  operation.result = base::planted(75) ? std::max(completion.res, 0) : completion.res;
  operation.more_data = (completion.flags & IORING_CQE_F_SOCK_NONEMPTY) != 0;
  FiberBlock& fiber = *operation.fiber;
  // the last touch: from here on the fiber may run and the operation be gone
  fiber.claim.complete();
  batch.add(fiber);
}

// What no fiber waits for any more may still be armed: a listener that outlives its runtime. It must be
// out of the kernel before the thread ends, or its completions could not be had any more.
void UringDriver::leave_thread() {
  WakeBatch batch;
  while (in_flight_ != 0) {
    if (io_uring_sqe* sqe = ring_.next_sqe()) {
      io_uring_prep_cancel(sqe, nullptr, IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL);
      sqe->user_data = kNobody;
    }
    enter(os::Ring::Wait::kYes, os::Ring::kNever, 0, batch);
    batch.deliver();
  }
  ring_.detach();
}

void UringDriver::ring_doorbell() {
  const std::uint64_t one = 1;
  // an eventfd that is never read stays writable
  arch::syscall(SYS_write, doorbell_, &one, sizeof one);
}

}  // namespace weft::sched
