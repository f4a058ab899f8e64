// SocketAddress: what is an address and what is not.
#include <weft/net.h>

#include <string>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <catch2/catch.hpp>

namespace weft {
namespace {

TEST_CASE("socket_address: what was parsed is printed as it was", "[socket_address]") {
  const auto text =
      GENERATE(as<std::string>{}, "127.0.0.1:80", "0.0.0.0:0", "255.255.255.255:65535", "[::1]:80",
               "[::]:0", "[2001:db8::1]:443", "[fe80::1:2:3:4]:1");
  const auto address = SocketAddress::parse(text);
  REQUIRE(address.ok());
  CHECK(address->to_string() == text);
  CHECK(address->port() == std::stoi(text.substr(text.rfind(':') + 1)));
  CHECK(address->family() == (text[0] == '[' ? AF_INET6 : AF_INET));
  CHECK(address->size() == (text[0] == '[' ? sizeof(sockaddr_in6) : sizeof(sockaddr_in)));
}

TEST_CASE("socket_address: anything else is kInvalidArgument, and says what was given",
          "[socket_address]") {
  const auto text =
      GENERATE(as<std::string>{}, "", ":", ":80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536",
               "127.0.0.1:-1", "127.0.0.1:+1", "127.0.0.1: 80", "127.0.0.1:80 ", "127.0.0.1:0x50",
               "127.0.0:80", "1.2.3.4.5:80", "256.0.0.1:80", "localhost:80", "::1:80", "[::1]",
               "[::1]80", "[::1]:", "[::1:80", "[]:80", "[127.0.0.1]:80", "[::1]:80:80", "[",
               "]:80", "[]:", " 127.0.0.1:80");
  const auto address = SocketAddress::parse(text);
  INFO(text);
  REQUIRE_FALSE(address.ok());
  CHECK(address.status().code() == absl::StatusCode::kInvalidArgument);
  CHECK(std::string(address.status().message()).find("\"" + text + "\"") != std::string::npos);
}

TEST_CASE("socket_address: text with a zero byte is no address", "[socket_address]") {
  CHECK_FALSE(SocketAddress::parse(std::string_view("127.0.0.1\0x:80", 14)).ok());
  CHECK_FALSE(SocketAddress::parse(std::string_view("[::1\0]:80", 9)).ok());
}

TEST_CASE("socket_address: an empty one prints as nothing", "[socket_address]") {
  const SocketAddress empty;
  CHECK(empty.to_string().empty());
  CHECK(empty.port() == 0);
  CHECK(empty.family() == 0);
  CHECK(empty.size() == 0);
}

TEST_CASE("socket_address: from() takes what fits and nothing else", "[socket_address]") {
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  v4.sin_port = htons(1234);
  v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK(SocketAddress::from(&v4, sizeof v4).to_string() == "127.0.0.1:1234");
  sockaddr_storage large{};
  CHECK(SocketAddress::from(&large, sizeof large).size() == 0);
}

}  // namespace
}  // namespace weft
