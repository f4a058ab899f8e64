// Transfers cut short, each of them: what arrives is what was sent, byte for byte.
#include <weft/net.h>
#include <weft/scope.h>

#include <array>
#include <vector>

#include <catch2/catch.hpp>

#include "tests/faults/plans.h"
#include "tests/io/loopback.h"

namespace weft {
namespace {

constexpr int kTransfers = 10'000;
constexpr std::size_t kBytesMax = 400;

std::uint64_t hash(std::uint64_t before, std::span<const std::uint8_t> bytes) {
  for (const std::uint8_t byte : bytes) before = (before ^ byte) * 0x100000001b3;
  return before;
}

// Says `transfers` messages of random lengths; the length goes before the bytes.
absl::Status say(TcpStream& stream, std::uint64_t seed, int transfers, std::uint64_t& hashed) {
  test::Random random(seed);
  std::array<std::uint8_t, kBytesMax + 2> message;
  for (int i = 0; i < transfers; ++i) {
    const std::size_t length = 1 + random.below(kBytesMax);
    message[0] = static_cast<std::uint8_t>(length % 256);
    message[1] = static_cast<std::uint8_t>(length / 256);
    for (std::size_t at = 0; at < length; ++at) {
      message[2 + at] = static_cast<std::uint8_t>(random.next());
    }
    const std::span<const std::uint8_t> whole(message.data(), 2 + length);
    hashed = hash(hashed, whole);
    if (absl::Status s = stream.write_all(std::as_bytes(whole)); !s.ok()) return s;
  }
  return absl::OkStatus();
}

absl::Status hear(TcpStream& stream, int transfers, std::uint64_t& hashed) {
  std::array<std::uint8_t, kBytesMax + 2> message;
  for (int i = 0; i < transfers; ++i) {
    const std::span<std::uint8_t> head(message.data(), 2);
    if (absl::Status s = stream.read_exactly(std::as_writable_bytes(head)); !s.ok()) return s;
    const std::size_t length = message[0] + 256u * message[1];
    if (length > kBytesMax) return absl::DataLossError("a length that nobody sent");
    const std::span<std::uint8_t> rest(message.data() + 2, length);
    if (absl::Status s = stream.read_exactly(std::as_writable_bytes(rest)); !s.ok()) return s;
    hashed = hash(hashed, {message.data(), 2 + length});
  }
  return absl::OkStatus();
}

TEST_CASE("short transfers: ten thousand messages arrive whole", "[faults][F9]") {
  test::TimeLimit time_limit(120);
  const int workers = GENERATE(1, 2);
  test::ShortTransfers shorten(test::seed());
  std::uint64_t said[2] = {}, heard[2] = {};
  absl::Status status;
  os::system::arm_plan(shorten);
  test::in_runtime(workers, [&] {
    test::SocketPair pair = test::tcp_pair();
    TcpStream a = TcpStream::adopt(pair.take(0)), b = TcpStream::adopt(pair.take(1));
    Scope scope;
    scope.spawn([&] { return say(a, 1, kTransfers / 2, said[0]); });
    scope.spawn([&] { return say(b, 2, kTransfers / 2, said[1]); });
    scope.spawn([&] { return hear(b, kTransfers / 2, heard[0]); });
    scope.spawn([&] { return hear(a, kTransfers / 2, heard[1]); });
    status = scope.join();
  });
  os::system::disarm_faults();
  INFO(status.ToString());
  CHECK(status.ok());
  CHECK(shorten.cut() > kTransfers);
  CHECK(heard[0] == said[0]);
  CHECK(heard[1] == said[1]);
}

}  // namespace
}  // namespace weft
