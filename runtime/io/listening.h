// Listening: a listening socket, one multishot accept, and the connections that have arrived.
//
//   auto accepted = listening.accept();      // parks; {fd, 0} or {-1, errno}
//
// The operation lives here and not on a stack, because it outlasts every single wait: while it is armed
// the kernel hands over connections without being asked again. It is armed by the first accept, in the
// ring of the worker where that runs; when nobody takes what arrives it is disarmed at kWaitingMax, so
// that a server at its limit leaves further clients in the kernel's backlog. [accept]
//
// Requires: nobody uses it when it is destroyed.
// Promises: no accepted descriptor is lost: it is handed out, or closed, by close() or where there is no
// memory to keep it. Several may close: all return when it is closed.
#pragma once

#include <cstddef>
#include <deque>

#include "runtime/sched/fiber.h"
#include "runtime/sched/io_driver.h"
#include "runtime/sched/object_word.h"
#include "runtime/sched/wait_list.h"

namespace weft::io {

class Listening {
 public:
  static constexpr std::size_t kWaitingMax = 64;
  static constexpr int kClosed = -10'000;
  static constexpr int kInterrupted = -10'001;

  explicit Listening(int fd);
  ~Listening() { close(); }
  Listening(const Listening&) = delete;
  Listening& operator=(const Listening&) = delete;

  // A connected descriptor, a negative errno, kClosed, or kInterrupted. Call from: a fiber. Parks.
  int accept();

  // Out of descriptors: gives up the spare one to accept one client and turn it away, so that it learns
  // of it, and the kernel does not report the same connection for ever. Call from: any thread.
  void turn_one_away();

  void close();
  int fd() const;  // -1 from the beginning of a close on

 private:
  static constexpr std::uint64_t kClosing = sched::ObjectWord::kFlagA;
  static constexpr std::uint64_t kGone = sched::ObjectWord::kFlagB;
  static constexpr int kArmAgain = -10'002;  // told to a waiter: the operation has ended

  static void on_completion(sched::Operation& operation, int result, bool more,
                            sched::WakeBatch& batch);
  void arrived(int result, bool more, sched::WakeBatch& batch);
  void hand_over(int result, sched::WaitList& waiting, sched::WakeBatch& batch);
  void keep(int fd) noexcept;
  void arm();
  void arm_again();

  const int fd_;  // open until kGone
  // its pointer: who waits in accept(), or, when closing, in close()
  mutable sched::ObjectWord word_;
  // Under the lock:
  int spare_fd_ = -1;
  bool armed_ = false;
  bool disarming_ = false;
  int error_ = 0;  // found by the next accept()
  std::deque<int> waiting_fds_;
  sched::Operation operation_{.kind = sched::Operation::Kind::kAccept};
};

}  // namespace weft::io
