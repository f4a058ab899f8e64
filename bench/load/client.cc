// A client's turn: open a few more connections, look whether the phase has changed,
// wait for events, and now and then look for connections on which nothing moves.
//
// A connection sends the next request as soon as a reply is complete (a closed loop
// with options.pipeline requests in flight). Whatever goes wrong ends that connection,
// is counted, and leaves the others running: how many fail says more than the first
// one.
#include "bench/load/client.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "bench/load/clocks.h"

namespace weft::bench {

namespace {

constexpr std::size_t kChunkBytes = 64 * 1024;
// More connections than a listen queue holds, opened at once, would wait a second for
// their SYN to be sent again; so only a few are on their way before the server has
// answered.
constexpr std::uint32_t kMostInSetup = 128;
constexpr int kTurnMilliseconds = 10;
constexpr std::uint64_t kSweepEveryNs = 200'000'000;

// Only this thread writes the counter: no need for a locked instruction.
template <class T>
void add(std::atomic<T>& counter, T n) {
  counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
}

std::string error_text(const char* operation, int error) {
  return std::string(operation) + ": " + std::strerror(error);
}

}  // namespace

Client::Client(const Options& options, const Share& share, const Control& control, FaultLog& faults)
    : options_(options),
      share_(share),
      control_(control),
      faults_(faults),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      connections_(share.connections + share.idle),
      sent_at_(connections_.size() * options.pipeline),
      in_(kChunkBytes),
      out_(kChunkBytes),
      budget_(share.budget) {
  for (std::size_t i = 0; i < connections_.size(); ++i) {
    Connection& connection = connections_[i];
    connection.number = share.first_number + static_cast<std::uint32_t>(i);
    connection.idle = i >= share.connections;
    connection.payload = Payload(options.seed, connection.number);
  }
}

Client::~Client() {
  for (Connection& connection : connections_) {
    if (connection.fd >= 0) close(connection.fd);
  }
  if (epoll_ >= 0) close(epoll_);
}

void Client::run() {
  std::array<epoll_event, 256> events;
  connect_started_ns_ = now_ns();
  std::uint64_t swept_ns = connect_started_ns_;
  while (counters_.ended.load(std::memory_order_relaxed) < connections_.size()) {
    follow_phase();
    open_more();
    const int n =
        epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), kTurnMilliseconds);
    for (int i = 0; i < n; ++i) {
      handle(*static_cast<Connection*>(events[static_cast<std::size_t>(i)].data.ptr),
             events[static_cast<std::size_t>(i)].events);
    }
    const std::uint64_t now = now_ns();
    if (now - swept_ns >= kSweepEveryNs) {
      sweep_for_stalls(now);
      swept_ns = now;
    }
  }
  add(counters_.lost, budget_);
}

void Client::follow_phase() {
  const Phase phase = control_.phase.load(std::memory_order_relaxed);
  if (phase == phase_) return;
  const bool begins_load = phase_ == Phase::kConnect && phase <= Phase::kMeasure;
  phase_ = phase;
  const std::uint64_t now = now_ns();
  for (Connection& connection : connections_) {
    if (phase == Phase::kAbandon) {
      close_connection(connection);
    } else if (begins_load && connection.state == Connection::State::kOpen && !connection.idle) {
      queue(connection, options_.pipeline, now);
    } else if (phase == Phase::kFinish) {
      end_own_side_if_done(connection);
    }
  }
}

void Client::open_more() {
  while (phase_ == Phase::kConnect && next_to_open_ < connections_.size() &&
         in_setup_ < kMostInSetup) {
    if (share_.connects_per_second > 0) {
      const double elapsed = static_cast<double>(now_ns() - connect_started_ns_) / 1e9;
      if (next_to_open_ > elapsed * share_.connects_per_second) return;
    }
    open(connections_[next_to_open_]);
    next_to_open_ += 1;
  }
}

void Client::open(Connection& connection) {
  in_setup_ += 1;
  connection.state = Connection::State::kConnecting;
  connection.moved_ns = now_ns();
  connection.fd =
      socket(share_.target.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (connection.fd < 0) {
    return fail(connection, Fault::kNotConnected, error_text("socket", errno));
  }
  const int on = 1;
  setsockopt(connection.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  const auto* address = reinterpret_cast<const sockaddr*>(&share_.target.address);
  if (connect(connection.fd, address, share_.target.length) != 0 && errno != EINPROGRESS) {
    return fail(connection, Fault::kNotConnected, error_text("connect", errno));
  }
  epoll_event event{};
  event.events = EPOLLIN | EPOLLOUT;
  event.data.ptr = &connection;
  connection.wants_write = true;
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, connection.fd, &event) != 0) {
    fail(connection, Fault::kNotConnected, error_text("epoll_ctl", errno));
  }
}

void Client::handle(Connection& connection, std::uint32_t events) {
  if (connection.state == Connection::State::kConnecting) {
    finish_connect(connection);
    return;
  }
  if ((events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0) receive(connection);
  if ((events & EPOLLOUT) != 0 && connection.state != Connection::State::kClosed) flush(connection);
}

void Client::finish_connect(Connection& connection) {
  int error = 0;
  socklen_t length = sizeof error;
  getsockopt(connection.fd, SOL_SOCKET, SO_ERROR, &error, &length);
  if (error != 0) return fail(connection, Fault::kNotConnected, error_text("connect", error));
  connection.state = Connection::State::kFirst;
  queue(connection, 1, now_ns());
}

void Client::receive(Connection& connection) {
  const ssize_t n = recv(connection.fd, in_.data(), in_.size(), 0);
  if (n == 0) return take_end(connection);
  if (n < 0) {
    if (errno != EAGAIN && errno != EINTR) take_reset(connection, errno);
    return;
  }
  const auto bytes = std::span(in_).first(static_cast<std::size_t>(n));
  const std::uint64_t due = connection.sent - connection.received;
  const auto wanted =
      bytes.first(static_cast<std::size_t>(std::min<std::uint64_t>(due, bytes.size())));
  const std::size_t wrong = connection.payload.mismatch(connection.received, wanted);
  if (wrong != wanted.size()) {
    if (faults_.count(Fault::kWrongByte)) {
      faults_.tell(
          describe_wrong_byte(connection, bytes, wrong, options_.size_bytes, connections_));
    }
    return close_connection(connection);
  }
  if (wanted.size() != bytes.size()) {
    return fail(connection, Fault::kWrongByte, "more bytes than were sent");
  }
  const std::uint64_t before = connection.received / options_.size_bytes;
  connection.received += bytes.size();
  connection.moved_ns = now_ns();
  take_replies(connection, before, connection.moved_ns);
}

void Client::take_replies(Connection& connection, std::uint64_t before, std::uint64_t now) {
  const std::uint64_t after = connection.received / options_.size_bytes;
  if (after == before) return;
  const std::uint64_t replies = after - before;
  if (connection.state == Connection::State::kFirst) {
    connection.state = Connection::State::kOpen;
    in_setup_ -= 1;
    add(counters_.answered, 1u);
    if (phase_ == Phase::kFinish) end_own_side_if_done(connection);
    return;
  }
  if (phase_ == Phase::kMeasure) {
    for (std::uint64_t k = before; k < after; ++k) latency_.record(now - sent_at(connection, k));
  }
  add(counters_.replies, replies);
  if (phase_ == Phase::kFinish) {
    end_own_side_if_done(connection);
  } else {
    queue(connection, replies, now);
  }
}

void Client::queue(Connection& connection, std::uint64_t requests, std::uint64_t now) {
  if (connection.state == Connection::State::kOpen) {
    requests = std::min(requests, budget_);
    budget_ -= requests;
  }
  if (connection.queued == connection.received) connection.moved_ns = now;
  const std::uint64_t first = connection.queued / options_.size_bytes;
  for (std::uint64_t k = first; k < first + requests; ++k) sent_at(connection, k) = now;
  connection.queued += requests * options_.size_bytes;
  flush(connection);
}

void Client::flush(Connection& connection) {
  while (connection.sent < connection.queued) {
    const auto bytes = std::span(out_).first(static_cast<std::size_t>(
        std::min<std::uint64_t>(connection.queued - connection.sent, kChunkBytes)));
    connection.payload.fill(connection.sent, bytes);
    const ssize_t n = send(connection.fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n < 0) {
      // Any error but a full socket is left to recv: what came before it must be looked
      // at first.
      watch(connection, errno == EAGAIN);
      return;
    }
    connection.sent += static_cast<std::uint64_t>(n);
  }
  watch(connection, false);
}

void Client::watch(Connection& connection, bool for_write) {
  if (connection.wants_write == for_write) return;
  connection.wants_write = for_write;
  epoll_event event{};
  event.events = for_write ? EPOLLIN | EPOLLOUT : EPOLLIN;
  event.data.ptr = &connection;
  epoll_ctl(epoll_, EPOLL_CTL_MOD, connection.fd, &event);
}

void Client::end_own_side_if_done(Connection& connection) {
  if (connection.state == Connection::State::kUnopened) return close_connection(connection);
  if (connection.state != Connection::State::kOpen || connection.received != connection.queued)
    return;
  connection.state = Connection::State::kHalfClosed;
  connection.moved_ns = now_ns();
  shutdown(connection.fd, SHUT_WR);
}

// The server has ended the connection in order. That is right when we have ended our
// side first, or when it is what the drain check waits for; even then a reply must not
// end in the middle.
void Client::take_end(Connection& connection) {
  if (options_.drain_check) {
    if (connection.received % options_.size_bytes != 0) {
      return fail(connection, Fault::kCutReply, "the server's end came in the middle of a reply");
    }
    count_unanswered(connection);
    return close_connection(connection);
  }
  if (connection.state == Connection::State::kHalfClosed) return close_connection(connection);
  fail(connection, Fault::kEarlyClose, "closed by the server while in use");
}

void Client::take_reset(Connection& connection, int error) {
  if (options_.drain_check && connection.received % options_.size_bytes != 0) {
    return fail(connection, Fault::kCutReply, error_text("in the middle of a reply", error));
  }
  fail(connection, Fault::kReset, error_text("recv", error));
}

void Client::count_unanswered(Connection& connection) {
  add(counters_.unanswered, requests_begun(connection) - connection.received / options_.size_bytes);
}

void Client::close_connection(Connection& connection) {
  if (connection.state == Connection::State::kClosed) return;
  if (connection.state == Connection::State::kConnecting ||
      connection.state == Connection::State::kFirst) {
    in_setup_ -= 1;
  }
  if (connection.state == Connection::State::kOpen) {
    add(counters_.lost,
        (connection.queued - connection.received + options_.size_bytes - 1) / options_.size_bytes);
  }
  connection.state = Connection::State::kClosed;
  if (connection.fd >= 0) close(connection.fd);
  connection.fd = -1;
  add(counters_.ended, 1u);
}

void Client::fail(Connection& connection, Fault fault, std::string_view what) {
  if (faults_.count(fault)) {
    std::string text = "connection " + std::to_string(connection.number) + ": " + std::string(what);
    if (fault != Fault::kNotConnected) {
      text += " (" + std::to_string(connection.received / options_.size_bytes) +
              " replies complete, " + std::to_string(connection.received % options_.size_bytes) +
              " bytes of the next, " + std::to_string(requests_begun(connection)) +
              " requests begun)";
    }
    faults_.tell(std::move(text));
  }
  close_connection(connection);
}

bool Client::waits(const Connection& connection) const {
  switch (connection.state) {
    case Connection::State::kUnopened:
    case Connection::State::kClosed:
      return false;
    case Connection::State::kConnecting:
    case Connection::State::kFirst:
    case Connection::State::kHalfClosed:
      return true;
    case Connection::State::kOpen:
      return connection.received != connection.queued;
  }
  return false;
}

void Client::sweep_for_stalls(std::uint64_t now) {
  const std::uint64_t limit_ns = nanoseconds_of(options_.stall_seconds);
  for (Connection& connection : connections_) {
    if (waits(connection) && now - std::min(now, connection.moved_ns) > limit_ns) {
      fail(connection, Fault::kStall,
           "nothing has moved for " + std::to_string(options_.stall_seconds) + " s");
    }
  }
}

std::uint64_t& Client::sent_at(const Connection& connection, std::uint64_t request) {
  const auto index = static_cast<std::size_t>(&connection - connections_.data());
  return sent_at_[index * options_.pipeline +
                  static_cast<std::size_t>(request % options_.pipeline)];
}

std::uint64_t Client::requests_begun(const Connection& connection) const {
  return (connection.sent + options_.size_bytes - 1) / options_.size_bytes;
}

}  // namespace weft::bench
