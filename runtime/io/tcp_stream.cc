// Reading and writing a TCP socket, by the policies of the design: a receive is an operation that waits
// for data before it looks; a send leaves at once when nothing else would run, and in the batch otherwise.
#include <weft/net.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <new>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "runtime/io/socket.h"
#include "runtime/os/system.h"
#include "runtime/sched/core.h"
#include "runtime/sched/sleep.h"
#include "runtime/sched/status.h"
#include "runtime/sched/worker.h"

namespace weft {

using io::Socket;
using sched::Operation;

namespace {

constexpr std::size_t kOperationBytesMax = 1 << 30;

absl::Status no_fiber(const char* operation) {
  return absl::FailedPreconditionError(std::string(operation) +
                                       ": only a fiber can wait for a stream");
}

absl::Status closed(const char* operation) {
  return absl::AbortedError(std::string(operation) + ": closed");
}

absl::Status busy(const char* operation) {
  return absl::FailedPreconditionError(std::string(operation) +
                                       ": another fiber does the same on this stream");
}

absl::Status refusal(int result, const char* operation) {
  return result == Socket::kBusy ? busy(operation) : closed(operation);
}

// A read under EndOnDrain while the runtime drains: takes what is there and does not wait for more.
int receive_now(Socket& socket, MutableBytes buffer) {
  const int fd = socket.acquire(Socket::Side::kReading);
  if (fd <= Socket::kClosed) return fd;
  const auto result =
      static_cast<int>(os::system::receive(fd, buffer.data(), buffer.size(), MSG_DONTWAIT));
  socket.release(Socket::Side::kReading);
  return result == -EAGAIN ? -ECANCELED : result;
}

int receive(Socket& socket, MutableBytes buffer, bool ends_on_drain) {
  if (ends_on_drain && sched::current_worker()->core().draining())
    return receive_now(socket, buffer);
  Operation operation{.kind = Operation::Kind::kReceive,
                      .buffer = buffer.data(),
                      .length = static_cast<unsigned>(std::min(buffer.size(), kOperationBytesMax)),
                      .more_data = socket.expects_data};
  const unsigned accepts = sched::kCancel | (ends_on_drain ? sched::kDrain : 0u);
  const int result = socket.perform(Socket::Side::kReading, operation, accepts);
  if (result >= 0) socket.expects_data = operation.more_data;
  return result;
}

// Nothing else would run, and nothing waits in the batch: the reply had better not wait, either.
bool sends_directly() {
  sched::WorkerSection section;
  const sched::Worker* worker = sched::current_worker();
  return worker->nothing_else() && worker->driver().prepared() == 0;
}

int send_now(Socket& socket, Bytes bytes) {
  const int fd = socket.acquire(Socket::Side::kWriting);
  if (fd <= Socket::kClosed) return fd;
  const auto result = static_cast<int>(
      os::system::send(fd, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL));
  socket.release(Socket::Side::kWriting);
  return result;
}

int send(Socket& socket, Bytes bytes) {
  if (sends_directly()) {
    const int result = send_now(socket, bytes);
    if (result != -EAGAIN && result != -EINTR) return result;
  }
  Operation operation{.kind = Operation::Kind::kSend,
                      .buffer = const_cast<std::byte*>(bytes.data()),
                      .length = static_cast<unsigned>(std::min(bytes.size(), kOperationBytesMax))};
  return socket.perform(Socket::Side::kWriting, operation, sched::kCancel);
}

template <class Name>
SocketAddress name_of(int fd, Name name) {
  sockaddr_storage storage{};
  socklen_t length = sizeof storage;
  if (name(fd, reinterpret_cast<sockaddr*>(&storage), &length) != 0) return {};
  return SocketAddress::from(&storage, length);
}

}  // namespace

TcpStream::TcpStream(std::unique_ptr<Socket> socket) : socket_(std::move(socket)) {}
TcpStream::TcpStream(TcpStream&&) noexcept = default;
TcpStream& TcpStream::operator=(TcpStream&&) noexcept = default;
TcpStream::~TcpStream() = default;

TcpStream TcpStream::adopt(int fd) {
  std::unique_ptr<Socket> socket(new (std::nothrow) Socket(fd));
  if (socket == nullptr) {
    os::system::close(fd);
    throw std::bad_alloc();
  }
  return TcpStream(std::move(socket));
}

absl::StatusOr<TcpStream> TcpStream::connect(std::string_view host_port) {
  if (sched::current_fiber() == nullptr) return no_fiber("connect");
  absl::StatusOr<SocketAddress> address = SocketAddress::parse(host_port);
  if (!address.ok()) return address.status();
  if (absl::Status status = sched::interrupted(); !status.ok()) return status;
  const int fd = os::system::socket(address->family(), SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return sched::errno_status("socket", fd);
  TcpStream stream = adopt(fd);
  const int one = 1;
  os::system::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  while (true) {
    Operation operation{.kind = Operation::Kind::kConnect,
                        .buffer = const_cast<void*>(address->data()),
                        .length = address->size()};
    const int result = stream.socket_->perform(Socket::Side::kWriting, operation, sched::kCancel);
    // EISCONN: an attempt that was broken off had succeeded all the same.
    if (result >= 0 || result == -EISCONN) return stream;
    if (!io::was_cut_short(result)) {
      return sched::errno_status("connect to " + std::string(host_port), result);
    }
    if (absl::Status status = sched::interrupted(); !status.ok()) return status;
  }
}

absl::StatusOr<std::size_t> TcpStream::read(MutableBytes buffer) {
  sched::FiberBlock* self = sched::current_fiber();
  if (self == nullptr) return no_fiber("read");
  if (buffer.empty()) return absl::InvalidArgumentError("read: the buffer is empty");
  const bool ends_on_drain = self->frame->ends_on_drain != 0;
  while (true) {
    if (absl::Status status = sched::interrupted(); !status.ok()) return status;
    if (socket_ == nullptr) return closed("read");
    const int result = receive(*socket_, buffer, ends_on_drain);
    if (result >= 0) {
      socket_->at_end = result == 0;
      return static_cast<std::size_t>(result);
    }
    if (result <= Socket::kClosed) return refusal(result, "read");
    if (result == -EAGAIN) {
      socket_->expects_data = false;
    } else if (!io::was_cut_short(result)) {
      return sched::errno_status("read", result);
    } else if (ends_on_drain && sched::current_worker()->core().draining()) {
      return sched::status_of(sched::Interruption::kCancelled);
    }
  }
}

absl::StatusOr<std::size_t> TcpStream::write(Bytes bytes) {
  if (sched::current_fiber() == nullptr) return no_fiber("write");
  if (bytes.empty()) return absl::InvalidArgumentError("write: there are no bytes");
  while (true) {
    if (absl::Status status = sched::interrupted(); !status.ok()) return status;
    if (socket_ == nullptr) return closed("write");
    const int result = send(*socket_, bytes);
    if (result > 0) return static_cast<std::size_t>(result);
    if (result <= Socket::kClosed) return refusal(result, "write");
    if (result != -EAGAIN && !io::was_cut_short(result))
      return sched::errno_status("write", result);
  }
}

absl::Status TcpStream::shutdown_write() {
  if (socket_ == nullptr) return closed("shutdown_write");
  const int result = socket_->shutdown_sending();
  if (result == Socket::kClosed) return closed("shutdown_write");
  return result < 0 ? sched::errno_status("shutdown", result) : absl::OkStatus();
}

void TcpStream::close() noexcept {
  if (socket_ != nullptr) socket_->close();
}

SocketAddress TcpStream::local() const { return name_of(fd(), ::getsockname); }
SocketAddress TcpStream::remote() const { return name_of(fd(), ::getpeername); }
int TcpStream::fd() const { return socket_ == nullptr ? -1 : socket_->fd(); }
bool TcpStream::at_end() const { return socket_ != nullptr && socket_->at_end; }
int TcpStream::release() { return socket_ == nullptr ? -1 : socket_->take_fd(); }

}  // namespace weft
