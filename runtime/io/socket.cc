#include "runtime/io/socket.h"

#include <cerrno>
#include <utility>

#include <sys/socket.h>

#include "runtime/base/check.h"
#include "runtime/base/plant.h"
#include "runtime/os/system.h"
#include "runtime/sched/park.h"
#include "runtime/sched/wake_batch.h"
#include "runtime/sched/worker.h"

namespace weft::io {

using sched::FiberBlock;
using sched::ObjectWord;
using sched::WaitList;
using sched::WaitNode;
using sched::WakeBatch;

bool was_cut_short(int result) {
  // -512 to -516 are the kernel's own restart codes, which io_uring lets through.
  return result == -ECANCELED || (result == -EINTR && !base::planted(72)) ||
         (result <= -512 && result >= -516);
}

int Socket::acquire(Side side) {
  const std::uint64_t state = word_.lock();
  FiberBlock*& user = users_[static_cast<unsigned>(side)];
  int result = fd_;
  if ((state & kClosing) != 0) {
    result = kClosed;
  } else if (user != nullptr) {
    result = kBusy;
  } else {
    user = sched::current_fiber();
  }
  word_.unlock(state);
  return result;
}

void Socket::release(Side side) {
  WakeBatch batch;
  std::uint64_t state = word_.lock();
  FiberBlock* self = std::exchange(users_[static_cast<unsigned>(side)], nullptr);
  const bool closing = (state & kClosing) != 0;
  if (closing && idle()) {
    WaitList waiting(ObjectWord::waiters(state));
    while (WaitNode* node = waiting.claim_first()) batch.add(*node);
    state = ObjectWord::with_waiters(state, nullptr);
  }
  word_.unlock(state);  // [close] the last touch: the closer may destroy the socket now
  // Nobody asks this fiber any more: it is not a user.
  if (closing) self->claim.withdraw(sched::kClose);
  batch.deliver();
}

int Socket::perform(Side side, sched::Operation& operation, unsigned accepts) {
  const int fd = acquire(side);
  if (fd <= kClosed) return fd;
  operation.fd = fd;
  const int result = sched::Worker::perform(operation, accepts | sched::kClose);
  const bool closed = sched::current_fiber()->claim.asked(sched::kClose);
  release(side);
  // An end or an error that the close itself may have made says nothing about the peer.
  return closed && result <= 0 ? kClosed : result;
}

// Under the lock: what another one closes meanwhile may not be named by its number any more.
int Socket::shutdown_sending() {
  const std::uint64_t state = word_.lock();
  const int result = fd_ < 0 ? kClosed : os::system::shutdown(fd_, SHUT_WR);
  word_.unlock(state);
  return result;
}

int Socket::fd() const {
  const std::uint64_t state = word_.lock();
  const int fd = fd_;
  word_.unlock(state);
  return fd;
}

void Socket::close() {
  WakeBatch batch;
  std::uint64_t state = word_.lock();
  if ((state & kClosing) != 0) {
    while ((state & kGone) == 0) state = sched::wait_and_lock(word_, state);
    word_.unlock(state);
    return;
  }
  if (fd_ < 0) return word_.unlock(state);
  state |= kClosing;
  const int fd = std::exchange(fd_, -1);
  for (FiberBlock* user : users_) {
    WEFT_CHECK(user == nullptr || user != sched::current_fiber(),
               "a stream was closed in its own use");
    if (user != nullptr) batch.request(*user, sched::kClose);
  }
  if (!idle()) {
    word_.unlock(state);
    // The peer hears of it at once, and the operations end by themselves.
    os::system::shutdown(fd, SHUT_RDWR);
    batch.deliver();
    state = word_.lock();
    while (!idle()) state = sched::wait_and_lock(word_, state);
  }
  word_.unlock(state);
  os::system::close(fd);
  state = word_.lock() | kGone;
  WaitList waiting(ObjectWord::waiters(state));
  while (WaitNode* node = waiting.claim_first()) batch.add(*node);
  word_.unlock(ObjectWord::with_waiters(state, nullptr));  // [close] the last touch
  batch.deliver();
}

int Socket::take_fd() {
  WEFT_CHECK(idle(), "the descriptor of a stream was taken while it is read or written");
  return std::exchange(fd_, -1);
}

}  // namespace weft::io
