// Ring: one io_uring, made and used by one kernel thread.
//
//   os::Ring ring;
//   int error = ring.open({});                         // negative errno: this machine has no such ring
//   io_uring_sqe* sqe = ring.next_sqe();               // submits when the queue is full
//   ring.enter(os::Ring::kSubmit, 0, nullptr);
//   while (const io_uring_cqe* cqe = ring.peek()) { ...; ring.seen(); }
//
// Set up with SINGLE_ISSUER, DEFER_TASKRUN, TASKRUN_FLAG, SUBMIT_ALL, CLAMP and CQSIZE (Linux 6.1) or not
// at all. liburing does the set-up and prepares entries; entering the kernel is our own few lines,
// because its helpers (2.3) cannot say NO_IOWAIT.
//
// Requires: everything but the constructor happens on the thread that called open().
// Promises: entries leave in the order in which they were prepared. A fork does not inherit the queues.
#pragma once

#include <cstdint>

#include <liburing.h>

#include "runtime/base/plant.h"

namespace weft::os {

struct RingOptions {
  unsigned submission_entries = 256;
  unsigned completion_entries = 4096;
};

class Ring {
 public:
  Ring() = default;
  ~Ring() { close(); }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  // Sets the ring up, proves it with one round trip of a no-op, and registers its descriptor.
  // Where locked memory is short the queues are halved, three times at most. Returns 0, or the negative
  // errno of the step that failed; failed_step() names it.
  int open(const RingOptions& options);
  void close();
  // Takes back what is the thread's: afterwards close() may come from any thread, and nothing else may.
  void detach();
  const char* failed_step() const { return failed_step_; }

  // A cleared entry at the end of the submission queue; hands what is prepared to the kernel first when
  // the queue is full. Null when the kernel takes nothing more now (it wants completions reaped).
  io_uring_sqe* next_sqe();

  // How many entries are prepared and not yet with the kernel.
  unsigned prepared() const { return ring_.sq.sqe_tail - *ring_.sq.khead; }

  // The position that the next entry will have, and whether the entry at a position is still here: one
  // that is may be turned into a no-op.
  std::uint32_t position() const { return ring_.sq.sqe_tail; }
  io_uring_sqe* unsubmitted(std::uint32_t position) {
    const std::uint32_t submitted = *ring_.sq.khead;
    if (position - submitted >= ring_.sq.sqe_tail - submitted) return nullptr;
    return &ring_.sq.sqes[position & (*ring_.sq.kring_mask)];
  }

  // Submits everything prepared and runs deferred completions. With `wait` it sleeps until there is a
  // completion, until `deadline_ns` of the monotonic clock (kNever: no deadline), or for a signal.
  // Returns 0 or the negative errno; -ETIME, -EINTR and -EBUSY are ordinary.
  enum class Wait { kNo, kYes };
  static constexpr std::int64_t kNever = INT64_MAX;
  int enter(Wait wait, std::int64_t deadline_ns, std::int64_t now_ns);

  // The oldest completion, or null. seen() gives it back.
  const io_uring_cqe* peek() const {
    const unsigned head = *ring_.cq.khead;
    // the kernel's store
    if (head == __atomic_load_n(ring_.cq.ktail, __ATOMIC_ACQUIRE)) return nullptr;
    return &ring_.cq.cqes[head & *ring_.cq.kring_mask];
  }
  void seen() { __atomic_store_n(ring_.cq.khead, *ring_.cq.khead + 1, __ATOMIC_RELEASE); }

  // True when an enter would bring completions: deferred work, or a queue that had overflowed.
  bool work_waiting() const {
    return (__atomic_load_n(ring_.sq.kflags, __ATOMIC_RELAXED) &  // relaxed: a hint, asked again
            (IORING_SQ_TASKRUN | (base::planted(74) ? 0 : IORING_SQ_CQ_OVERFLOW))) != 0;
  }
  std::uint64_t enters() const { return enters_; }

 private:
  int round_trip();
  int wait_in_poll(std::int64_t left_ns);

  io_uring ring_{};
  bool open_ = false;
  bool waits_in_poll_ = false;
  const char* failed_step_ = "";
  std::uint64_t enters_ = 0;
};

}  // namespace weft::os
