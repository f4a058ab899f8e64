#include "runtime/io/listening.h"

#include <cerrno>
#include <new>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include "runtime/base/plant.h"
#include "runtime/os/system.h"
#include "runtime/sched/core.h"
#include "runtime/sched/park.h"
#include "runtime/sched/wake_batch.h"
#include "runtime/sched/worker.h"

namespace weft::io {

using sched::ObjectWord;
using sched::WaitList;
using sched::WaitNode;
using sched::WakeBatch;

namespace {

int open_spare() { return os::system::open("/dev/null", O_RDONLY | O_CLOEXEC); }

// Errors of one connection that never came to be, for the next one is as good; and the end of the operation
// that was ours, or its worker's.
bool is_passing(int error) {
  return error == -ECANCELED || error == -ECONNABORTED || error == -EPROTO || error == -EINTR ||
         error == -EAGAIN || error == -ENETDOWN || error == -EHOSTUNREACH ||
         error == -ENETUNREACH || error == -ETIMEDOUT;
}

}  // namespace

Listening::Listening(int fd) : fd_(fd) {
  spare_fd_ = open_spare();  // last: nothing can throw any more
  operation_.fd = fd;
  operation_.completed = &on_completion;
}

int Listening::accept() {
  while (true) {
    if (sched::current_fiber()->claim.asked(sched::kCancel) ||
        sched::current_worker()->core().draining()) {
      return kInterrupted;
    }
    const std::uint64_t state = word_.lock();
    if ((state & kClosing) != 0) {
      word_.unlock(state);
      return kClosed;
    }
    if (!waiting_fds_.empty()) {
      const int fd = waiting_fds_.front();
      waiting_fds_.pop_front();
      word_.unlock(state);
      return fd;
    }
    if (error_ != 0) {
      const int error = std::exchange(error_, 0);
      word_.unlock(state);
      return error;
    }
    if (!armed_) arm();
    WaitNode node;
    // Claimed, the node has the descriptor: it is ours, even if a cancellation came at the same time.
    if (sched::wait(word_, state, node, sched::kCancel | sched::kDrain)) {
      const auto item = static_cast<int>(static_cast<std::int64_t>(node.item));
      if (item != kArmAgain) return item;
      arm_again();
    }
  }
}

// Even when this fiber goes away now: others may wait.
void Listening::arm_again() {
  const std::uint64_t state = word_.lock();
  if (!armed_ && (state & kClosing) == 0) arm();
  word_.unlock(state);
}

// Under the lock, on the worker whose ring will have the operation.
void Listening::arm() {
  armed_ = true;
  disarming_ = false;
  sched::WorkerSection section;
  sched::current_worker()->driver().prepare(operation_);
}

void Listening::on_completion(sched::Operation& operation, int result, bool more,
                              WakeBatch& batch) {
  auto* listening = reinterpret_cast<Listening*>(reinterpret_cast<char*>(&operation) -
                                                 offsetof(Listening, operation_));
  listening->arrived(result, more, batch);
}

// On the stack of the worker whose ring has the operation.
void Listening::arrived(int result, bool more, WakeBatch& batch) {
  std::uint64_t state = word_.lock();
  WaitList waiting(ObjectWord::waiters(state));
  if (!more) armed_ = false;
  if ((state & kClosing) != 0) {
    // Who waits now waits for the end of the operation, and not for a connection.
    if (result >= 0) keep(result);
    while (!armed_ && waiting.first() != nullptr) {
      if (WaitNode* closer = waiting.claim_first()) batch.add(*closer);
    }
  } else {
    if (result >= 0 || !is_passing(result)) hand_over(result, waiting, batch);
    if (!armed_ && !base::planted(73)) {
      // The kernel may end a multishot for reasons of its own, or this worker may be at its end: so it is
      // armed again where somebody waits.
      if (waiting.first() != nullptr) hand_over(kArmAgain, waiting, batch);
    } else if (!disarming_ && waiting_fds_.size() >= kWaitingMax) {
      disarming_ = true;
      sched::current_worker()->driver().cancel(operation_);
    }
  }
  word_.unlock(ObjectWord::with_waiters(state, waiting.first()));  // [accept] the last touch
}

void Listening::hand_over(int result, WaitList& waiting, WakeBatch& batch) {
  if (WaitNode* node = waiting.claim_first()) {
    node->item = static_cast<std::uint64_t>(static_cast<std::int64_t>(result));
    batch.add(*node);
  } else if (result >= 0) {
    keep(result);
  } else if (result != kArmAgain) {
    error_ = result;
  }
}

void Listening::keep(int fd) noexcept {
  try {
    waiting_fds_.push_back(fd);
  } catch (const std::bad_alloc&) {
    os::system::close(fd);
    error_ = -ENOMEM;
  }
}

int Listening::fd() const {
  const std::uint64_t state = word_.lock();
  word_.unlock(state);
  return (state & kClosing) != 0 ? -1 : fd_;
}

// Under the lock, so that two do not give up the same descriptor, and only while the kernel does not
// accept by itself: otherwise the client may be gone, and the system call would wait for the next one.
void Listening::turn_one_away() {
  const std::uint64_t state = word_.lock();
  if (spare_fd_ < 0) spare_fd_ = open_spare();
  pollfd client{fd_, POLLIN, 0};
  if ((state & kClosing) == 0 && !armed_ && spare_fd_ >= 0 &&
      os::system::poll(&client, 1, 0) == 1) {
    os::system::close(spare_fd_);
    const int fd = os::system::accept(fd_, SOCK_CLOEXEC);
    if (fd >= 0) os::system::close(fd);
    spare_fd_ = open_spare();
  }
  word_.unlock(state);
}

void Listening::close() {
  WakeBatch batch;
  std::uint64_t state = word_.lock();
  if ((state & kClosing) != 0) {
    while ((state & kGone) == 0) state = sched::wait_and_lock(word_, state);
    word_.unlock(state);
    return;
  }
  WaitList waiting(ObjectWord::waiters(state));
  while (WaitNode* node = waiting.claim_first()) {
    node->item = static_cast<std::uint64_t>(std::int64_t{kClosed});
    batch.add(*node);
  }
  word_.unlock(ObjectWord::with_waiters(state | kClosing, nullptr));
  batch.deliver();

  // Ends the armed operation, in whichever ring it is, without a message to that ring's worker.
  os::system::shutdown(fd_, SHUT_RDWR);
  state = word_.lock();
  while (armed_) state = sched::wait_and_lock(word_, state);
  word_.unlock(state);
  for (int fd : waiting_fds_) os::system::close(fd);
  waiting_fds_.clear();
  os::system::close(fd_);
  if (spare_fd_ >= 0) os::system::close(spare_fd_);

  state = word_.lock() | kGone;
  WaitList closers(ObjectWord::waiters(state));
  while (WaitNode* node = closers.claim_first()) batch.add(*node);
  word_.unlock(ObjectWord::with_waiters(state, nullptr));  // the last touch
  batch.deliver();
}

}  // namespace weft::io
