#include "runtime/io/listening.h"

#include <cerrno>
#include <utility>

#include <fcntl.h>
#include <sys/socket.h>

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

// Errors of one connection that never came to be: the next one is as good.
bool is_passing(int error) {
  return error == -ECONNABORTED || error == -EPROTO || error == -EINTR || error == -EAGAIN ||
         error == -ENETDOWN || error == -EHOSTUNREACH || error == -ENETUNREACH || error == -ETIMEDOUT;
}

}  // namespace

Listening::Listening(int fd) : fd_(fd), spare_fd_(open_spare()) {
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
      return static_cast<int>(static_cast<std::int64_t>(node.item));
    }
  }
}

// Under the lock, on the worker whose ring will have the operation.
void Listening::arm() {
  armed_ = true;
  disarming_ = false;
  sched::WorkerSection section;
  sched::current_worker()->driver().prepare(operation_);
}

void Listening::on_completion(sched::Operation& operation, int result, bool more, WakeBatch& batch) {
  auto* listening = reinterpret_cast<Listening*>(reinterpret_cast<char*>(&operation) -
                                                 offsetof(Listening, operation_));
  listening->arrived(result, more, batch);
}

// On the stack of the worker whose ring has the operation.
void Listening::arrived(int result, bool more, WakeBatch& batch) {
  std::uint64_t state = word_.lock();
  WaitList waiting(ObjectWord::waiters(state));
  if (!more) armed_ = false;
  const bool closing = (state & kClosing) != 0;
  if (result >= 0 || !(closing || disarming_ || is_passing(result))) hand_over(result, waiting, batch);
  if (closing) {
    if (!armed_) {
      while (WaitNode* closer = waiting.claim_first()) batch.add(*closer);
    }
  } else if (!armed_ && waiting.first() != nullptr) {
    arm();  // the kernel may end a multishot for reasons of its own
  } else if (armed_ && !disarming_ && waiting_fds_.size() >= kWaitingMax) {
    disarming_ = true;
    sched::current_worker()->driver().cancel(operation_);
  }
  word_.unlock(ObjectWord::with_waiters(state, waiting.first()));  // [accept] the last touch
}

void Listening::hand_over(int result, WaitList& waiting, WakeBatch& batch) {
  if (WaitNode* node = waiting.claim_first()) {
    node->item = static_cast<std::uint64_t>(static_cast<std::int64_t>(result));
    batch.add(*node);
  } else if (result >= 0) {
    waiting_fds_.push_back(result);
  } else {
    error_ = result;
  }
}

void Listening::turn_one_away() {
  if (spare_fd_ < 0) return;
  os::system::close(spare_fd_);
  const int fd = os::system::accept(fd_, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd >= 0) os::system::close(fd);
  spare_fd_ = open_spare();
}

void Listening::close() {
  if (fd_ < 0) return;
  WakeBatch batch;
  std::uint64_t state = word_.lock() | kClosing;
  WaitList waiting(ObjectWord::waiters(state));
  while (WaitNode* node = waiting.claim_first()) {
    node->item = static_cast<std::uint64_t>(std::int64_t{kClosed});
    batch.add(*node);
  }
  word_.unlock(ObjectWord::with_waiters(state, nullptr));
  batch.deliver();

  // Ends the armed operation, in whichever ring it is, without a message to that ring's worker.
  os::system::shutdown(fd_, SHUT_RDWR);
  state = word_.lock();
  if (armed_) {
    WaitNode node;
    sched::wait(word_, state, node, 0);
  } else {
    word_.unlock(state);
  }
  for (int fd : waiting_fds_) os::system::close(fd);
  waiting_fds_.clear();
  os::system::close(std::exchange(fd_, -1));
  if (spare_fd_ >= 0) os::system::close(std::exchange(spare_fd_, -1));
}

}  // namespace weft::io
