#include "runtime/io/socket.h"

#include <cerrno>
#include <utility>

#include <sys/socket.h>

#include "runtime/base/check.h"
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
  return result == -ECANCELED || result == -EINTR || (result <= -512 && result >= -516);
}

int Socket::acquire(Side side) {
  const std::uint64_t state = word_.lock();
  FiberBlock*& user = users_[static_cast<unsigned>(side)];
  int result = 0;
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
  if (int refused = acquire(side); refused != 0) return refused;
  operation.fd = fd_;
  const int result = sched::Worker::perform(operation, accepts | sched::kClose);
  const bool closed = sched::current_fiber()->claim.asked(sched::kClose);
  release(side);
  return closed && (was_cut_short(result) || result == 0) ? kClosed : result;
}

void Socket::close() {
  if (fd_ < 0) return;
  WakeBatch batch;
  std::uint64_t state = word_.lock();
  WEFT_CHECK((state & kClosing) == 0, "a stream was closed by two at the same time");
  state |= kClosing;
  for (FiberBlock* user : users_) {
    WEFT_CHECK(user == nullptr || user != sched::current_fiber(), "a stream was closed in its own use");
    if (user != nullptr) batch.request(*user, sched::kClose);
  }
  const bool in_use = !idle();
  word_.unlock(state);
  if (in_use) {
    // The peer hears of it at once, and the operations end by themselves.
    os::system::shutdown(fd_, SHUT_RDWR);
    batch.deliver();
    state = word_.lock();
    if (idle()) {
      word_.unlock(state);
    } else {
      WaitNode node;
      sched::wait(word_, state, node, 0);
    }
  }
  os::system::close(std::exchange(fd_, -1));
}

int Socket::take_fd() {
  WEFT_CHECK(idle(), "the descriptor of a stream was taken while it is read or written");
  return std::exchange(fd_, -1);
}

}  // namespace weft::io
