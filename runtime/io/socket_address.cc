#include <weft/net.h>

#include <charconv>
#include <cstring>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace weft {
namespace {

absl::Status bad_address(std::string_view text, const char* why) {
  return absl::InvalidArgumentError("address \"" + std::string(text) + "\": " + why +
                                    "; write 127.0.0.1:80 or [::1]:80");
}

}  // namespace

absl::StatusOr<SocketAddress> SocketAddress::parse(std::string_view text) {
  const bool bracketed = !text.empty() && text.front() == '[';
  const std::size_t colon = bracketed ? text.find("]:") + 1 : text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return bad_address(text, "has no port");
  const std::string host(bracketed ? text.substr(1, colon - 2) : text.substr(0, colon));
  if (host.find('\0') != std::string::npos) return bad_address(text, "has a zero byte");
  const std::string_view port_text = text.substr(colon + 1);
  std::uint16_t port = 0;
  const auto parsed = std::from_chars(port_text.data(), port_text.data() + port_text.size(), port);
  if (port_text.empty() || parsed.ec != std::errc() ||
      parsed.ptr != port_text.data() + port_text.size()) {
    return bad_address(text, "the port is not a number from 0 to 65535");
  }
  if (bracketed) {
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_port = htons(port);
    if (inet_pton(AF_INET6, host.c_str(), &address.sin6_addr) != 1) {
      return bad_address(text, "is no IPv6 address in the brackets");
    }
    return from(&address, sizeof address);
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  if (inet_pton(AF_INET, host.c_str(), &address.sin_addr) != 1) {
    return bad_address(text, "the host is no IPv4 address");
  }
  return from(&address, sizeof address);
}

SocketAddress SocketAddress::from(const void* sockaddr, std::size_t bytes) {
  SocketAddress address;
  if (bytes > sizeof address.bytes_) return address;
  std::memcpy(address.bytes_, sockaddr, bytes);
  address.size_ = static_cast<unsigned>(bytes);
  return address;
}

int SocketAddress::family() const {
  sa_family_t family = 0;
  if (size_ >= sizeof family) std::memcpy(&family, bytes_, sizeof family);
  return family;
}

std::uint16_t SocketAddress::port() const {
  in_port_t port = 0;  // at the same place in both kinds
  if (size_ != 0) std::memcpy(&port, bytes_ + offsetof(sockaddr_in, sin_port), sizeof port);
  return ntohs(port);
}

std::string SocketAddress::to_string() const {
  char host[INET6_ADDRSTRLEN] = "";
  if (family() == AF_INET) {
    inet_ntop(AF_INET, bytes_ + offsetof(sockaddr_in, sin_addr), host, sizeof host);
    return std::string(host) + ":" + std::to_string(port());
  }
  if (family() == AF_INET6) {
    inet_ntop(AF_INET6, bytes_ + offsetof(sockaddr_in6, sin6_addr), host, sizeof host);
    return "[" + std::string(host) + "]:" + std::to_string(port());
  }
  return {};
}

}  // namespace weft
