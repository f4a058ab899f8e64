// Loopback: connected pairs of TCP sockets, and a runtime for one piece of a test.
//
//   test::in_runtime(2, [&] { ... });                     // the body is a fiber; it writes, it never asserts
//   test::SocketPair pair = test::tcp_pair();
//   weft::TcpStream stream = weft::TcpStream::adopt(pair.take(0));
//
// Requires: called by the thread that runs the test case, but for SocketPair.
// Promises: when in_runtime() returns, no operation was left in any ring: whatever happened in the body,
// each one has completed or was withdrawn (F16).
#pragma once

#include <weft/net.h>
#include <weft/runtime.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>

namespace weft::test {

// The long version of a stress: WEFT_SOAK is set.
inline bool soaking() { return std::getenv("WEFT_SOAK") != nullptr; }

// Ends the process, by SIGALRM, when a test hangs. Nothing is judged by it.
class TimeLimit {
 public:
  explicit TimeLimit(unsigned seconds) { alarm(seconds); }
  ~TimeLimit() { alarm(0); }
  TimeLimit(const TimeLimit&) = delete;
  TimeLimit& operator=(const TimeLimit&) = delete;
};

class SocketPair {
 public:
  SocketPair(int a, int b) : fds_{a, b} {}
  SocketPair(SocketPair&& other) noexcept : fds_(std::exchange(other.fds_, {-1, -1})) {}
  SocketPair& operator=(SocketPair&&) = delete;
  ~SocketPair() {
    for (int fd : fds_) {
      if (fd >= 0) ::close(fd);
    }
  }
  bool ok() const { return fds_[0] >= 0 && fds_[1] >= 0; }
  int fd(unsigned side) const { return fds_[side]; }
  int take(unsigned side) { return std::exchange(fds_[side], -1); }
  void close(unsigned side) { ::close(take(side)); }

 private:
  std::array<int, 2> fds_;
};

// Connects one to the other, by plain system calls. Call from: any thread.
inline SocketPair tcp_pair() {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  int one = 1;
  SocketPair pair(-1, -1);
  if (bind(listener, generic, length) == 0 && listen(listener, 1) == 0 &&
      getsockname(listener, generic, &length) == 0) {
    const int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    const int connected = connect(client, generic, length);
    SocketPair made(client,
                    connected == 0 ? accept4(listener, nullptr, nullptr, SOCK_CLOEXEC) : -1);
    ::close(listener);
    return made;
  }
  ::close(listener);
  return pair;
}

// A client of the kernel's, without the runtime. Returns the socket, or a negative errno. Blocks.
inline int connect_to(const SocketAddress& address) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  if (connect(fd, static_cast<const sockaddr*>(address.data()), address.size()) == 0) return fd;
  const int error = errno;
  ::close(fd);
  return -error;
}

// Waits until no operation is counted, for a bounded number of looks.
inline bool settled(const Runtime& runtime) {
  for (int looks = 0; looks < 200'000; ++looks) {
    if (runtime.metrics().operations == 0) return true;
    sched_yield();
  }
  return false;
}

// Runs `body`, which returns nothing, as a fiber of a runtime of its own, and stops that.
template <class Body>
void in_runtime(int workers, Body body) {
  Options options;
  options.workers = workers;
  options.handle_signals = false;
  auto runtime = Runtime::start(options);
  INFO(runtime.status().ToString());
  REQUIRE(runtime.ok());
  const absl::Status status = (*runtime)->block_on([&body] { body(); });
  CHECK(status.ok());
  CHECK(settled(**runtime));
  CHECK((*runtime)->metrics().fibers == 0);
  const absl::Status stopped = (*runtime)->stop();
  INFO(stopped.ToString());
  CHECK(stopped.ok());
}

// Whether the peer of a stream has ended it: the end, or a reset. Blocks the calling thread.
inline bool peer_sees_the_end(int fd) {
  std::array<char, 4096> rest;
  while (true) {
    const ssize_t n = recv(fd, rest.data(), rest.size(), 0);
    if (n <= 0) return true;
  }
}

}  // namespace weft::test
