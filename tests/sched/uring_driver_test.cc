// UringDriver on its own: full queues, withdrawal, cancellation, the doorbell, and rings that cannot be had.
#include "runtime/sched/uring_driver.h"

#include <weft/runtime.h>

#include <array>
#include <cerrno>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "runtime/os/clock.h"
#include "runtime/os/system.h"
#include "runtime/sched/wake_batch.h"
#include "tests/support/proc.h"

namespace weft::sched {
namespace {

using os::system::Call;

struct DisarmAfterwards {
  ~DisarmAfterwards() { os::system::disarm_faults(); }
};

// An operation that notes its completions instead of resuming a fiber.
struct Noted : Operation {
  std::vector<int> results;
  bool ended = false;

  Noted(Kind kind_of, int on, void* bytes, unsigned count) : Operation{.kind = kind_of} {
    fd = on;
    buffer = bytes;
    length = count;
    completed = [](Operation& operation, int outcome, bool more, WakeBatch&) {
      auto& self = static_cast<Noted&>(operation);
      self.results.push_back(outcome);
      self.ended = !more;
    };
  }
};

struct SocketEnds {
  int fds[2] = {-1, -1};
  SocketEnds() { REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0); }
  ~SocketEnds() {
    close(fds[0]);
    close(fds[1]);
  }
};

class Driven {
 public:
  explicit Driven(os::RingOptions options = {}) {
    alarm(60);  // a completion that never comes ends the test
    REQUIRE(driver.open(options) == 0);
    poll();
  }
  ~Driven() {
    CHECK(driver.in_flight() == 0);
    driver.leave_thread();
    alarm(0);
  }
  void poll() {
    WakeBatch batch;
    driver.poll(batch);
  }
  // Until something happens; a deadline in the past only looks.
  void wait(std::int64_t deadline_ns = os::kNever) {
    WakeBatch batch;
    driver.wait(deadline_ns, os::now_ns(), batch);
  }
  void wait_for(const Noted& operation) {
    while (!operation.ended) wait();
  }
  UringDriver driver;
};

// `count` sends of one byte each, all prepared before the first look; returns them when all have completed.
std::vector<std::unique_ptr<Noted>> send_numbers(Driven& driven, int fd,
                                                 std::vector<std::uint8_t>& bytes) {
  std::vector<std::unique_ptr<Noted>> sends;
  for (std::uint8_t& byte : bytes) {
    sends.push_back(std::make_unique<Noted>(Operation::Kind::kSend, fd, &byte, 1));
    driven.driver.prepare(*sends.back());
  }
  while (driven.driver.in_flight() != 0) driven.wait();
  return sends;
}

std::vector<std::uint8_t> numbered(std::size_t count) {
  std::vector<std::uint8_t> bytes(count);
  for (std::size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::uint8_t>(i * 7);
  return bytes;
}

std::vector<std::uint8_t> received(int fd, std::size_t count) {
  std::vector<std::uint8_t> bytes(count);
  std::size_t have = 0;
  while (have < count) {
    const ssize_t n = recv(fd, bytes.data() + have, count - have, 0);
    if (n <= 0) break;
    have += static_cast<std::size_t>(n);
  }
  return bytes;
}

bool each_completed_once(const std::vector<std::unique_ptr<Noted>>& operations, int result) {
  for (const auto& operation : operations) {
    if (!operation->ended || operation->results != std::vector<int>{result}) return false;
  }
  return true;
}

// Ten sockets, because one would be full.
TEST_CASE("uring_driver: one entry for a thousand operations keeps their order",
          "[uring_driver][F6]") {
  Driven driven({.submission_entries = 1, .completion_entries = 4096});
  std::array<SocketEnds, 10> ends;
  auto bytes = numbered(1000);
  std::vector<std::unique_ptr<Noted>> sends;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const int fd = ends[i % ends.size()].fds[0];
    sends.push_back(std::make_unique<Noted>(Operation::Kind::kSend, fd, &bytes[i], 1));
    driven.driver.prepare(*sends.back());
  }
  while (driven.driver.in_flight() != 0) driven.wait();
  CHECK(each_completed_once(sends, 1));
  for (std::size_t i = 0; i < ends.size(); ++i) {
    std::vector<std::uint8_t> sent;
    for (std::size_t at = i; at < bytes.size(); at += ends.size()) sent.push_back(bytes[at]);
    CHECK(received(ends[i].fds[1], sent.size()) == sent);
  }
}

TEST_CASE("uring_driver: a kernel that takes nothing for a while delays and loses nothing",
          "[uring_driver][F5][F6]") {
  DisarmAfterwards disarm;
  const int error = GENERATE(EBUSY, EAGAIN, EINTR);
  const unsigned first = GENERATE(0u, 1u, 3u);
  const unsigned repeat = GENERATE(1u, 50u);
  Driven driven({.submission_entries = 4, .completion_entries = 64});
  SocketEnds ends;
  auto bytes = numbered(100);
  os::system::arm_fault(Call::kIoUringEnter, first, error, repeat);
  CHECK(each_completed_once(send_numbers(driven, ends.fds[0], bytes), 1));
  CHECK(received(ends.fds[1], bytes.size()) == bytes);
}

// Fails the enter that would put the rest of the backlog into the queue, and no other: nothing may sleep
// with operations that the kernel has not seen.
TEST_CASE("uring_driver: it does not sleep on a backlog", "[uring_driver][F6]") {
  DisarmAfterwards disarm;
  Driven driven({.submission_entries = 4, .completion_entries = 64});
  SocketEnds quiet, ends;
  char byte = 0;
  std::vector<std::unique_ptr<Noted>> silent;
  for (int i = 0; i < 4; ++i) {
    silent.push_back(std::make_unique<Noted>(Operation::Kind::kReceive, quiet.fds[0], &byte, 1));
    driven.driver.prepare(*silent.back());
  }
  os::system::arm_fault(Call::kIoUringEnter, 0, EBUSY, 2);
  Noted receive(Operation::Kind::kReceive, ends.fds[0], &byte, 1);
  Noted send(Operation::Kind::kSend, ends.fds[1], &byte, 1);
  driven.driver.prepare(receive);
  driven.driver.prepare(send);
  driven.wait_for(receive);
  driven.wait_for(send);
  CHECK(receive.results == std::vector<int>{1});
  for (auto& one : silent) driven.driver.cancel(*one);
  for (auto& one : silent) driven.wait_for(*one);
  CHECK(each_completed_once(silent, -ECANCELED));
}

TEST_CASE("uring_driver: a completion queue of eight overflows and loses nothing",
          "[uring_driver][F5]") {
  Driven driven({.submission_entries = 4, .completion_entries = 8});
  SocketEnds ends;
  bool overflow_seen = false;
  for (int round = 0; round < 125; ++round) {
    auto bytes = numbered(80);
    std::vector<std::unique_ptr<Noted>> sends;
    for (auto& byte : bytes) {
      sends.push_back(std::make_unique<Noted>(Operation::Kind::kSend, ends.fds[0], &byte, 1));
      driven.driver.prepare(*sends.back());
    }
    overflow_seen |= driven.driver.completions_waiting();
    while (driven.driver.in_flight() != 0) driven.wait();
    REQUIRE(each_completed_once(sends, 1));
    REQUIRE(received(ends.fds[1], bytes.size()) == bytes);
  }
  CHECK(overflow_seen);
}

TEST_CASE("uring_driver: the doorbell is armed again after an overflow ended it",
          "[uring_driver][F5][F7]") {
  Driven driven({.submission_entries = 4, .completion_entries = 8});
  SocketEnds ends;
  for (int round = 0; round < 20; ++round) {
    auto bytes = numbered(40);
    std::vector<std::unique_ptr<Noted>> sends;
    for (auto& byte : bytes) {
      sends.push_back(std::make_unique<Noted>(Operation::Kind::kSend, ends.fds[0], &byte, 1));
      driven.driver.prepare(*sends.back());
      driven.driver.ring_doorbell();
    }
    while (driven.driver.in_flight() != 0) driven.wait();
    while (driven.driver.completions_waiting()) driven.poll();
    static_cast<void>(received(ends.fds[1], bytes.size()));
    driven.wait(0);  // arms it again, at the latest now
    driven.poll();
    std::thread other([&driven] { driven.driver.ring_doorbell(); });
    driven.wait();  // returns, or the alarm ends us
    other.join();
  }
}

TEST_CASE("uring_driver: many rings are few completions", "[uring_driver]") {
  Driven driven;
  for (int i = 0; i < 1000; ++i) driven.driver.ring_doorbell();
  const std::uint64_t before = driven.driver.kernel_entries();
  driven.wait();
  while (driven.driver.completions_waiting()) driven.poll();
  CHECK(driven.driver.kernel_entries() - before < 100);
  driven.wait(1);  // nothing is left over: it sleeps until the deadline, which is past
  CHECK_FALSE(driven.driver.completions_waiting());
}

TEST_CASE("uring_driver: what was not submitted can be withdrawn and does not happen",
          "[uring_driver]") {
  Driven driven;
  SocketEnds ends;
  REQUIRE(send(ends.fds[1], "ab", 2, 0) == 2);
  char first = 0, second = 0;
  Noted taken_back(Operation::Kind::kReceive, ends.fds[0], &first, 1);
  Noted kept(Operation::Kind::kReceive, ends.fds[0], &second, 1);
  driven.driver.prepare(taken_back);
  driven.driver.prepare(kept);
  CHECK(driven.driver.in_flight() == 2);
  CHECK(driven.driver.withdraw(taken_back));
  CHECK(driven.driver.in_flight() == 1);
  driven.wait_for(kept);
  CHECK(second == 'a');
  CHECK(first == 0);
  CHECK(taken_back.results.empty());
  driven.driver.prepare(taken_back);  // and may be prepared again
  driven.wait_for(taken_back);
  CHECK(first == 'b');
}

TEST_CASE("uring_driver: what was submitted cannot be withdrawn, but cancelled", "[uring_driver]") {
  Driven driven;
  SocketEnds ends;
  char byte = 0;
  Noted receive(Operation::Kind::kReceive, ends.fds[0], &byte, 1);
  driven.driver.prepare(receive);
  driven.poll();
  CHECK_FALSE(driven.driver.withdraw(receive));
  driven.driver.cancel(receive);
  driven.driver.cancel(receive);  // twice is once
  driven.wait_for(receive);
  CHECK(receive.results == std::vector<int>{-ECANCELED});
}

TEST_CASE("uring_driver: data that came first wins over a cancel", "[uring_driver][F3]") {
  Driven driven;
  SocketEnds ends;
  char byte = 0;
  Noted receive(Operation::Kind::kReceive, ends.fds[0], &byte, 1);
  REQUIRE(send(ends.fds[1], "x", 1, 0) == 1);
  receive.more_data = true;
  driven.driver.prepare(receive);
  driven.driver.cancel(receive);
  driven.wait_for(receive);
  // Whatever the kernel decided: the byte was received, or it is still there.
  const bool got = receive.results == std::vector<int>{1};
  char left = 0;
  const bool still_there = recv(ends.fds[0], &left, 1, MSG_DONTWAIT) == 1;
  CHECK(got != still_there);
}

TEST_CASE("uring_driver: a cancel reaches an operation that is still in the backlog",
          "[uring_driver]") {
  DisarmAfterwards disarm;
  const bool by_withdrawal = GENERATE(false, true);
  Driven driven({.submission_entries = 4, .completion_entries = 64});
  SocketEnds ends;
  char byte = 0;
  std::vector<std::unique_ptr<Noted>> receives;
  os::system::arm_fault(Call::kIoUringEnter, 0, EBUSY, ~0u);
  for (int i = 0; i < 20; ++i) {
    receives.push_back(std::make_unique<Noted>(Operation::Kind::kReceive, ends.fds[0], &byte, 1));
    driven.driver.prepare(*receives.back());
  }
  for (auto& receive : receives) {
    if (by_withdrawal && driven.driver.withdraw(*receive)) {
      receive->ended = true;
      receive->results = {-ECANCELED};
    } else {
      driven.driver.cancel(*receive);
    }
  }
  os::system::disarm_faults();
  for (auto& receive : receives) driven.wait_for(*receive);
  CHECK(each_completed_once(receives, -ECANCELED));
}

TEST_CASE("uring_driver: a thread that leaves ends what is still armed", "[uring_driver][F16]") {
  alarm(60);
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  REQUIRE(listen(listener, 1) == 0);
  Noted accept(Operation::Kind::kAccept, listener, nullptr, 0);
  {
    UringDriver driver;
    REQUIRE(driver.open() == 0);
    driver.prepare(accept);
    WakeBatch batch;
    driver.poll(batch);
    driver.leave_thread();
    CHECK(driver.in_flight() == 0);
  }
  CHECK(accept.ended);
  CHECK(accept.results == std::vector<int>{-ECANCELED});
  close(listener);
  alarm(0);
}

TEST_CASE("uring_driver: a runtime that gets no ring says which step failed",
          "[uring_driver][K1]") {
  DisarmAfterwards disarm;
  struct Failure {
    Call call;
    const char* step;
    int error;
  };
  const auto failure = GENERATE(Failure{Call::kIoUringSetup, "io_uring_setup", ENOSYS},
                                Failure{Call::kIoUringSetup, "io_uring_setup", EPERM},
                                Failure{Call::kIoUringSetup, "io_uring_setup", EMFILE},
                                Failure{Call::kIoUringRegister, "io_uring_register", EINVAL},
                                Failure{Call::kIoUringEnter, "io_uring_enter", EACCES},
                                Failure{Call::kEventfd, "eventfd", EMFILE});
  const unsigned nth = GENERATE(0u, 1u, 2u);
  // Later entries may be those of a worker that runs already, and then are no failure to start.
  if (failure.call == Call::kIoUringEnter && nth != 0) return;
  Options options;
  options.workers = 3;
  options.handle_signals = false;
  static_cast<void>(Runtime::start(options));  // what a first start keeps is kept now
  const test::ProcessUse before = test::process_use(1);
  os::system::arm_fault(failure.call, nth, failure.error);
  const absl::Status status = Runtime::start(options).status();
  os::system::disarm_faults();
  INFO(failure.step << " " << failure.error << " in worker " << nth);
  CHECK_FALSE(status.ok());
  const std::string text(status.message());
  CHECK(text.rfind(std::string(failure.step) + ": ", 0) == 0);
  CHECK(text.size() > std::string(failure.step).size() + 4);
  CHECK(status.GetPayload("weft/errno").has_value());
  const test::ProcessUse after = test::process_use(before.threads);
  CHECK(after.descriptors == before.descriptors);
  CHECK(after.threads == before.threads);
}

TEST_CASE("uring_driver: short of locked memory it takes smaller queues", "[uring_driver]") {
  DisarmAfterwards disarm;
  const unsigned failures = GENERATE(1u, 3u, 4u);
  UringDriver driver;
  os::system::arm_fault(Call::kIoUringSetup, 0, ENOMEM, failures);
  const int error = driver.open();
  CHECK(error == (failures < 4 ? 0 : -ENOMEM));
  if (error == 0) driver.leave_thread();
}

}  // namespace
}  // namespace weft::sched
