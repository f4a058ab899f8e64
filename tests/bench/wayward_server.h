// WaywardServer: an echo server in a thread of the test that does one thing wrong,
// once, on purpose.
//
//   WaywardServer server(Mischief::kFlip);
//   run echo_load against server.port() ...
//
// It is honest until a connection has had kHonestReplies; the first that gets there
// sees the mischief. The size of a request is kRequestBytes. One thread, poll, and
// sockets that block while sending: the load always reads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

namespace weft::bench {

enum class Mischief {
  kNone,
  kFlip,     // one bit of one byte
  kDrop,     // one byte is missing
  kRepeat,   // some bytes come twice
  kSurplus,  // a byte that nobody sent, at the very end
  kSwap,     // two connections get each other's reply
  kClose,    // ends a connection in order, though it is in use
  kReset,    // the same, without order
  kStall,    // answers one connection no more
  kCut,      // ends a connection in the middle of a reply
  kDrain,    // ends every connection in order and reads until the other side has ended: no mischief
};

class WaywardServer {
 public:
  static constexpr std::size_t kRequestBytes = 64;
  static constexpr std::size_t kHonestReplies = 10;

  explicit WaywardServer(Mischief mischief);
  ~WaywardServer();
  WaywardServer(const WaywardServer&) = delete;
  WaywardServer& operator=(const WaywardServer&) = delete;

  std::uint16_t port() const { return port_; }

 private:
  struct Connection {
    int fd;
    std::size_t echoed = 0;
    bool silent = false;  // reads, and answers no more
  };

  void serve();
  void accept_one();
  void read_some(Connection& connection);
  void answer(Connection& connection, std::string bytes);
  void misbehave(Connection& connection, std::string bytes);
  void swap(Connection& connection, std::string bytes);
  void end(Connection& connection);

  const Mischief mischief_;
  bool done_ = false;  // the mischief has been done
  int listener_ = -1;
  int stop_ = -1;
  std::uint16_t port_ = 0;
  std::vector<Connection> connections_;
  Connection* held_ = nullptr;  // kSwap: the connection whose reply waits for another's
  std::string held_bytes_;
  std::thread thread_;
};

}  // namespace weft::bench
