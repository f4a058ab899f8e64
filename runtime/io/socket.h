// Socket: a descriptor with one reader, one writer, and a close that waits for both.
//
//   Socket socket(fd);
//   Socket::Result r = socket.perform(Socket::Side::kReading, operation, kCancel);
//   socket.close();                          // from any fiber or thread
//
// Closing a descriptor under an operation would leave the operation armed on the old file, and let the
// number be used for the next connection while bytes for the old one are still on their way. So close()
// marks the socket, asks the fibers that use it to let go, waits until both have, and closes then. Several
// may close: all return when it is closed. [close]
#pragma once

#include <array>
#include <cstddef>

#include "runtime/sched/fiber.h"
#include "runtime/sched/io_driver.h"
#include "runtime/sched/object_word.h"

namespace weft::io {

class Socket {
 public:
  enum class Side : unsigned { kReading, kWriting };

  // What perform() and try_now() say beside the kernel's results, which are never so negative.
  static constexpr int kClosed = -10'000;
  static constexpr int kBusy = -10'001;

  explicit Socket(int fd) : fd_(fd) {}
  ~Socket() { close(); }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  // Parks until the operation is complete; kBusy when that side is in use, kClosed when the socket is, or
  // was meanwhile and nothing came of the operation. Call from: a fiber. Parks.
  int perform(Side side, sched::Operation& operation, unsigned accepts);

  // Takes the side for a system call that does not block; the descriptor, or as perform(). release() gives
  // it back. Call from: a fiber. Never parks.
  int acquire(Side side);
  void release(Side side);

  // Ends our sending side; 0, a negative errno, or kClosed. Call from: any thread. Never parks.
  int shutdown_sending();

  void close();
  int fd() const;  // -1 from the beginning of a close on
  // Gives the descriptor away. Requires: nobody uses it.
  int take_fd();

  bool expects_data = false;  // the last receive left something; the reader's
  bool at_end = false;        // the reader's

 private:
  static constexpr std::uint64_t kClosing = sched::ObjectWord::kFlagA;
  static constexpr std::uint64_t kGone = sched::ObjectWord::kFlagB;

  bool idle() const { return users_[0] == nullptr && users_[1] == nullptr; }

  mutable sched::ObjectWord word_;  // its pointer: who waits in close()
  // Under the lock:
  int fd_;
  std::array<sched::FiberBlock*, 2> users_{};  // by side
};

// Whether a result says that the operation was ended early.
bool was_cut_short(int result);

}  // namespace weft::io
