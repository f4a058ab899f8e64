// Operation and IoDriver: the seam between what fibers wait for and how the kernel is asked for it.
//
//   Operation operation{.kind = Operation::Kind::kReceive, .fd = fd, .buffer = p, .length = n};
//   int result = perform(operation, kCancel);          // worker.h: prepares, parks, returns the result
//
// An engine speaks in operations, not in readiness: it may have a kernel that completes them (io_uring)
// or do them itself when a descriptor is ready. Each worker has one driver, and only that worker calls
// it, except for ring_doorbell().
//
// Requires: an operation, and the memory that it names, stay where they are until its final completion.
// Promises: each prepared operation completes exactly once (a multishot one: any number of times with
// `more`, then once without), or was withdrawn. Operations reach the kernel in the order in which they
// were prepared, cancels included.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include <sys/socket.h>

#include "runtime/sched/fiber.h"

namespace weft::sched {

class WakeBatch;

struct Operation {
  enum class Kind : std::uint8_t {
    kAccept,   // multishot; results are descriptors, close-on-exec
    kConnect,  // `buffer` is the sockaddr, `length` its size
    kReceive,  // at least one byte, or 0 at the end
    kSend,     // as many bytes as the kernel takes: all of them unless something went wrong
  };

  Kind kind;
  int fd = -1;
  void* buffer = nullptr;
  unsigned length = 0;

  FiberBlock* fiber = nullptr;  // resumed by the final completion
  unsigned accepts = 0;         // which requests may cut the fiber's wait short
  // Instead of a fiber: called on the worker's stack for each completion; collects wakes in `batch`.
  // The last call, the one without `more`, is the driver's last touch of the operation.
  void (*completed)(Operation& operation, int result, bool more, WakeBatch& batch) = nullptr;

  int result = 0;  // bytes, a descriptor, or a negative errno
  // kReceive. Before: data is likely there already. After: the socket holds more than was taken.
  bool more_data = false;

  // The driver's own.
  enum class Stage : std::uint8_t { kIdle, kBacklog, kBatch };
  Stage stage = Stage::kIdle;
  bool cancel_wanted = false;
  std::uint32_t position = 0;
  Operation* next = nullptr;
  Operation* next_cancel = nullptr;
};

class IoDriver {
 public:
  virtual ~IoDriver() = default;

  // Adds `operation` to the batch. Call from: the worker, or a fiber on it. Never parks.
  virtual void prepare(Operation& operation) = 0;

  // Takes back an operation that has not reached the kernel; false when it has. It does not complete
  // then. Call from: the worker.
  virtual bool withdraw(Operation& operation) = 0;

  // Asks for the early end of an operation that has. It completes all the same, perhaps with success.
  // Call from: the worker.
  virtual void cancel(Operation& operation) = 0;

  // How many operations the batch holds.
  virtual unsigned prepared() const = 0;

  // True when poll() would bring something: one or two loads, no system call.
  virtual bool completions_waiting() const = 0;

  // Hands the batch to the kernel and puts the fibers whose operations have completed into `batch`,
  // without sleeping. Call from: the worker, on its own stack.
  virtual void poll(WakeBatch& batch) = 0;

  // As poll(), and sleeps until something completes, the doorbell rings, or `deadline_ns` is over.
  virtual void wait(std::int64_t deadline_ns, std::int64_t now_ns, WakeBatch& batch) = 0;

  // Ends wait(), now or the next time. Call from: any thread.
  virtual void ring_doorbell() = 0;

  // The worker's thread ends. Others may still ring the doorbell, until the driver is destroyed, by
  // another thread. Call from: the worker.
  virtual void leave_thread() = 0;

  // Operations prepared or in the kernel: 0 when nothing refers to anybody's memory.
  virtual std::size_t in_flight() const = 0;

  // How often the kernel was entered.
  virtual std::uint64_t kernel_entries() const = 0;
};

}  // namespace weft::sched
