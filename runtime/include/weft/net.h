// TCP: addresses, streams, listeners, and serve(), which makes a service of them.
//
//   absl::Status echo(weft::TcpStream& stream) {
//     std::array<std::byte, 4096> buffer;
//     while (true) {
//       absl::StatusOr<std::size_t> n = stream.read(buffer);
//       if (!n.ok() || *n == 0) return n.status();
//       if (auto s = stream.write_all(std::span(buffer).first(*n)); !s.ok()) return s;
//     }
//   }
//   auto listener = weft::TcpListener::bind("127.0.0.1:7000");
//   return weft::serve(*listener, echo);
//
// Promises: no descriptor is lost, whatever is cancelled when. SIGPIPE is never raised. Errors say
// "operation: errno text" and have an error_number().
#pragma once

#include <weft/bytes.h>
#include <weft/stream.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

namespace weft {

namespace io {
class Listening;
class Socket;
}  // namespace io

// An IPv4 or IPv6 address with a port.
class SocketAddress {
 public:
  SocketAddress() = default;
  // "127.0.0.1:80", "[::1]:80"; names are not looked up. Call from: any thread. Never parks.
  static absl::StatusOr<SocketAddress> parse(std::string_view text);
  // From a sockaddr of the kernel's. Call from: any thread. Never parks.
  static SocketAddress from(const void* sockaddr, std::size_t bytes);

  std::string to_string() const;  // "" for an empty one
  std::uint16_t port() const;
  int family() const;  // AF_INET, AF_INET6, or 0
  const void* data() const { return bytes_; }
  unsigned size() const { return size_; }

 private:
  alignas(4) std::byte bytes_[28] = {};  // a sockaddr_in or sockaddr_in6
  unsigned size_ = 0;
};

class TcpStream final : public Stream {
 public:
  // Connects to a numeric address, with TCP_NODELAY. Call from: a fiber. Parks.
  static absl::StatusOr<TcpStream> connect(std::string_view host_port);
  // Takes over a connected socket; closes it when it throws std::bad_alloc. Call from: any thread.
  // Never parks.
  static TcpStream adopt(int fd);

  TcpStream(TcpStream&&) noexcept;
  TcpStream& operator=(TcpStream&&) noexcept;
  ~TcpStream() override;  // close()

  [[nodiscard]] absl::StatusOr<std::size_t> read(MutableBytes buffer) override;
  [[nodiscard]] absl::StatusOr<std::size_t> write(Bytes bytes) override;
  absl::Status shutdown_write() override;
  void close() noexcept override;

  // Call from: any thread. Never parks.
  SocketAddress local() const;
  SocketAddress remote() const;
  int fd() const;
  // Whether read() has returned 0.
  bool at_end() const;
  // Gives the descriptor away. Requires: nobody reads or writes. Call from: any thread. Never parks.
  int release();

 private:
  explicit TcpStream(std::unique_ptr<io::Socket> socket);
  std::unique_ptr<io::Socket> socket_;
};

struct ListenOptions {
  int backlog = 4096;
  bool reuse_port = false;
};

class TcpListener {
 public:
  // "0.0.0.0:80"; port 0 takes a free one, see local(). Call from: any thread. Never parks.
  static absl::StatusOr<TcpListener> bind(std::string_view address, ListenOptions options = {});

  TcpListener(TcpListener&&) noexcept;
  TcpListener& operator=(TcpListener&&) noexcept;
  ~TcpListener();  // close()

  // The next connection. kCancelled also when the runtime drains; kResourceExhausted when no descriptor
  // is left: then one waiting client has been turned away, and the caller had better pause.
  // Call from: a fiber; several may wait. Parks.
  [[nodiscard]] absl::StatusOr<TcpStream> accept();
  SocketAddress local() const;
  // Fibers in accept() get kAborted "closed". Call from: any thread. Parks.
  void close() noexcept;

 private:
  explicit TcpListener(std::unique_ptr<io::Listening> listening);
  std::unique_ptr<io::Listening> listening_;
};

struct ServeOptions {
  std::size_t max_connections = 10'000;
  std::size_t stack_size = 0;  // of a connection's fiber; 0: the runtime's default
};

namespace internal {
absl::Status serve(TcpListener& listener, const std::function<absl::Status(TcpStream&)>& handler,
                   const ServeOptions& options);
}  // namespace internal

// One fiber per connection, which calls handler(stream) and then closes the stream: its sending side
// first, so that a last reply is not destroyed. The handler's error or exception ends that connection
// alone, and is logged, at most once a second. Stops accepting at the limit, and on drain; pauses when
// descriptors run out. Returns OK when it has drained; its last log line says how many connections that
// were. Call from: a fiber. Parks.
template <class H>
absl::Status serve(TcpListener& listener, H handler, ServeOptions options = {}) {
  return internal::serve(
      listener, [&handler](TcpStream& stream) -> absl::Status { return handler(stream); }, options);
}

}  // namespace weft
