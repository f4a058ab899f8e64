#include <weft/net.h>

#include <cerrno>
#include <new>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "runtime/io/listening.h"
#include "runtime/io/socket.h"
#include "runtime/os/system.h"
#include "runtime/sched/core.h"
#include "runtime/sched/sleep.h"
#include "runtime/sched/status.h"
#include "runtime/sched/worker.h"

namespace weft {

using io::Listening;

namespace {

void set_option(int fd, int level, int name, int value) {
  os::system::setsockopt(fd, level, name, &value, sizeof value);
}

// That it is over must be heard without memory, too.
absl::Status closed() {
  return sched::status_or_bare(absl::StatusCode::kAborted,
                               [] { return absl::AbortedError("accept: closed"); });
}

}  // namespace

TcpListener::TcpListener(std::unique_ptr<Listening> listening) : listening_(std::move(listening)) {}
TcpListener::TcpListener(TcpListener&&) noexcept = default;
TcpListener& TcpListener::operator=(TcpListener&&) noexcept = default;
TcpListener::~TcpListener() = default;

absl::StatusOr<TcpListener> TcpListener::bind(std::string_view address, ListenOptions options) {
  absl::StatusOr<SocketAddress> parsed = SocketAddress::parse(address);
  if (!parsed.ok()) return parsed.status();
  const int fd = os::system::socket(parsed->family(), SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return sched::errno_status("socket", fd);
  std::unique_ptr<Listening> listening;  // closes it on every way out
  try {
    listening = std::make_unique<Listening>(fd);
  } catch (const std::bad_alloc&) {
    os::system::close(fd);
    throw;
  }
  // A restarted server must not wait for the old connections' TIME_WAIT.
  set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  if (options.reuse_port) set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
  // Accepted sockets inherit it: small replies leave at once.
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  if (int error = os::system::bind(fd, parsed->data(), parsed->size()); error < 0) {
    return sched::errno_status("bind to " + std::string(address), error);
  }
  if (int error = os::system::listen(fd, options.backlog); error < 0) {
    return sched::errno_status("listen on " + std::string(address), error);
  }
  return TcpListener(std::move(listening));
}

absl::StatusOr<TcpStream> TcpListener::accept() {
  if (sched::current_fiber() == nullptr) {
    return absl::FailedPreconditionError("accept: only a fiber can wait for a connection");
  }
  if (listening_ == nullptr) return closed();
  while (true) {
    const int result = listening_->accept();
    if (result >= 0) return TcpStream::adopt(result);
    if (result == Listening::kClosed) return closed();
    if (result == Listening::kInterrupted) {
      if (absl::Status status = sched::interrupted(); !status.ok()) return status;
      if (sched::current_worker()->core().draining()) {
        return sched::status_of(sched::Interruption::kCancelled);
      }
      continue;
    }
    if (result == -EMFILE || result == -ENFILE) listening_->turn_one_away();
    return sched::errno_status("accept", result);
  }
}

SocketAddress TcpListener::local() const {
  if (listening_ == nullptr) return {};
  sockaddr_storage storage{};
  socklen_t length = sizeof storage;
  if (getsockname(listening_->fd(), reinterpret_cast<sockaddr*>(&storage), &length) != 0) return {};
  return SocketAddress::from(&storage, length);
}

void TcpListener::close() noexcept {
  if (listening_ != nullptr) listening_->close();
}

}  // namespace weft
