#include "tests/bench/wayward_server.h"

#include <cstdlib>
#include <utility>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

namespace weft::bench {

namespace {

// Connections are never moved once others point at them, so there is room for all from
// the start.
constexpr std::size_t kMostConnections = 64;

void must(bool held) {
  if (!held) std::abort();
}

void send_all(int fd, const std::string& bytes) {
  for (std::size_t sent = 0; sent < bytes.size();) {
    const ssize_t n = send(fd, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) return;  // the load has given up on it
    sent += static_cast<std::size_t>(n);
  }
}

}  // namespace

WaywardServer::WaywardServer(Mischief mischief) : mischief_(mischief) {
  connections_.reserve(kMostConnections);
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  stop_ = eventfd(0, EFD_CLOEXEC);
  must(listener_ >= 0 && stop_ >= 0);
  const int on = 1;
  must(setsockopt(listener_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  must(bind(listener_, reinterpret_cast<sockaddr*>(&address), length) == 0);
  must(listen(listener_, SOMAXCONN) == 0);
  must(getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length) == 0);
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { serve(); });
}

WaywardServer::~WaywardServer() {
  must(eventfd_write(stop_, 1) == 0);
  thread_.join();
  for (Connection& connection : connections_) end(connection);
  close(listener_);
  close(stop_);
}

void WaywardServer::serve() {
  std::vector<pollfd> watched;
  for (;;) {
    watched = {{stop_, POLLIN, 0}, {listener_, POLLIN, 0}};
    for (const Connection& connection : connections_) watched.push_back({connection.fd, POLLIN, 0});
    must(poll(watched.data(), watched.size(), -1) > 0);
    if (watched[0].revents != 0) return;
    for (std::size_t i = 2; i < watched.size(); ++i) {
      if (watched[i].revents != 0) read_some(connections_[i - 2]);
    }
    if (watched[1].revents != 0) accept_one();
  }
}

void WaywardServer::accept_one() {
  must(connections_.size() < kMostConnections);
  const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
  if (fd >= 0) connections_.push_back({fd});
}

void WaywardServer::read_some(Connection& connection) {
  if (connection.fd < 0) return;  // ended by the mischief of this turn
  std::string bytes(kRequestBytes, '\0');
  const ssize_t n = recv(connection.fd, bytes.data(), bytes.size(), 0);
  if (n <= 0) return end(connection);
  if (connection.silent) return;
  bytes.resize(static_cast<std::size_t>(n));
  answer(connection, std::move(bytes));
}

void WaywardServer::answer(Connection& connection, std::string bytes) {
  const bool time_has_come = connection.echoed >= kHonestReplies * kRequestBytes;
  if (mischief_ != Mischief::kNone && time_has_come && !done_) return misbehave(connection, bytes);
  connection.echoed += bytes.size();
  send_all(connection.fd, bytes);
}

void WaywardServer::misbehave(Connection& connection, std::string bytes) {
  done_ = mischief_ != Mischief::kDrain;
  const std::size_t middle = bytes.size() / 2;
  switch (mischief_) {
    case Mischief::kNone:
      break;
    case Mischief::kFlip:
      bytes[middle] = static_cast<char>(bytes[middle] ^ 4);
      break;
    case Mischief::kDrop:
      bytes.erase(middle, 1);
      break;
    case Mischief::kRepeat: {
      const std::string again = bytes.substr(middle - 8);
      bytes.resize(middle);
      bytes += again;
      break;
    }
    case Mischief::kSurplus:
      bytes += '!';
      break;
    case Mischief::kSwap:
      return swap(connection, std::move(bytes));
    case Mischief::kClose:
      return end(connection);
    case Mischief::kReset: {
      const linger at_once = {1, 0};
      setsockopt(connection.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
      return end(connection);
    }
    case Mischief::kStall:
      connection.silent = true;
      return;
    case Mischief::kCut:
      bytes.resize(middle);
      [[fallthrough]];
    case Mischief::kDrain:
      send_all(connection.fd, bytes);
      shutdown(connection.fd, SHUT_WR);
      connection.silent = true;
      return;
  }
  connection.echoed += bytes.size();
  send_all(connection.fd, bytes);
}

// The first connection's reply is held back until another one has a reply too.
void WaywardServer::swap(Connection& connection, std::string bytes) {
  if (held_ == nullptr) {
    held_ = &connection;
    held_bytes_ = std::move(bytes);
    done_ = false;
    return;
  }
  send_all(held_->fd, bytes);
  send_all(connection.fd, held_bytes_);
}

void WaywardServer::end(Connection& connection) {
  if (connection.fd >= 0) close(connection.fd);
  connection.fd = -1;
}

}  // namespace weft::bench
