// UringDriver: operations as io_uring requests, one ring per worker, one kernel entry per turn.
//
//   UringDriver driver;
//   int error = driver.open();                 // on the worker's own thread; negative errno
//
// A completion finds its operation by user_data, which is the operation's address: the operation lies on
// the stack of the fiber that waits for it, and the fiber does not resume before. Requests whose result
// nobody wants (cancels, withdrawn operations) carry 0, the doorbell carries 1.
//
// The doorbell is an eventfd under a multishot poll that is never read: each write is a completion,
// several before one look are a single one. A multishot request can end by itself (the completion queue
// overflowed); then it is armed again before the next sleep.
#pragma once

#include <cstdint>

#include "runtime/base/intrusive_list.h"
#include "runtime/os/ring.h"
#include "runtime/sched/io_driver.h"

namespace weft::sched {

class UringDriver final : public IoDriver {
 public:
  UringDriver() = default;
  ~UringDriver() override;

  // Makes the ring and the doorbell. Returns 0 or the negative errno of failed_step().
  // Call from: the worker that will use it.
  int open(const os::RingOptions& options = {});
  const char* failed_step() const { return failed_step_; }

  void prepare(Operation& operation) override;
  bool withdraw(Operation& operation) override;
  void cancel(Operation& operation) override;
  unsigned prepared() const override { return batch_size_; }
  bool completions_waiting() const override {
    return ring_.peek() != nullptr || ring_.work_waiting();
  }
  void poll(WakeBatch& batch) override;
  void wait(std::int64_t deadline_ns, std::int64_t now_ns, WakeBatch& batch) override;
  void ring_doorbell() override;
  void leave_thread() override;
  std::size_t in_flight() const override { return in_flight_; }
  std::uint64_t kernel_entries() const override { return ring_.enters(); }

 private:
  bool fill(Operation& operation);
  bool fill_cancel(Operation& operation);
  void ask_to_end(Operation& operation);
  void fill_doorbell();
  void fill_backlog();
  void enter(os::Ring::Wait wait, std::int64_t deadline_ns, std::int64_t now_ns, WakeBatch& batch);
  void reap(WakeBatch& batch);
  void complete(const io_uring_cqe& completion, WakeBatch& batch);

  os::Ring ring_;
  int doorbell_ = -1;
  bool doorbell_armed_ = false;
  unsigned batch_size_ = 0;    // operations and cancels not yet handed to the kernel
  std::size_t in_flight_ = 0;  // prepared, and not yet completed or withdrawn
  const char* failed_step_ = "";

  // What found the submission queue full and the kernel unwilling; goes in first, in order.
  base::IntrusiveQueue<Operation, &Operation::next> backlog_;
  Operation* cancels_ = nullptr;  // cancels that found no room, through next_cancel
};

}  // namespace weft::sched
