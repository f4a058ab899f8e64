#include "bench/load/payload.h"

#include <array>
#include <cstddef>
#include <span>
#include <vector>

#include <catch2/catch.hpp>

namespace weft::bench {
namespace {

std::vector<std::byte> bytes_of(const Payload& payload, std::uint64_t position, std::size_t count) {
  std::vector<std::byte> bytes(count);
  payload.fill(position, bytes);
  return bytes;
}

TEST_CASE("payload: any piece equals the same bytes of the whole", "[payload]") {
  const Payload payload(7, 3);
  const std::vector<std::byte> whole = bytes_of(payload, 0, 100);
  for (std::size_t begin = 0; begin <= 40; ++begin) {
    for (std::size_t length = 0; length <= 40; ++length) {
      const std::vector<std::byte> piece = bytes_of(payload, begin, length);
      REQUIRE(std::equal(piece.begin(), piece.end(),
                         whole.begin() + static_cast<std::ptrdiff_t>(begin)));
    }
  }
  CHECK(payload.at(57) == whole[57]);
}

TEST_CASE("payload: mismatch finds the first wrong byte wherever it is", "[payload]") {
  const Payload payload(7, 3);
  for (std::uint64_t position = 0; position < 16; ++position) {
    std::vector<std::byte> bytes = bytes_of(payload, position, 40);
    REQUIRE(payload.mismatch(position, bytes) == bytes.size());
    for (std::size_t wrong = bytes.size();
         wrong-- > 0;) {  // backwards: an earlier one is added each time
      bytes[wrong] ^= std::byte{0x10};
      REQUIRE(payload.mismatch(position, bytes) == wrong);
    }
  }
}

TEST_CASE("payload: no byte needs no check", "[payload]") {
  CHECK(Payload(1, 1).mismatch(5, {}) == 0);
}

TEST_CASE("payload: streams of other connections and of other seeds differ", "[payload]") {
  const std::vector<std::byte> mine = bytes_of(Payload(7, 3), 0, 64);
  const Payload others[] = {Payload(7, 2), Payload(7, 4), Payload(8, 3), Payload(6, 4),
                            Payload(0, 0)};
  for (const Payload& other : others) {
    const std::vector<std::byte> bytes = bytes_of(other, 0, 64);
    std::size_t same = 0;
    for (std::size_t i = 0; i < mine.size(); ++i) same += mine[i] == bytes[i] ? 1 : 0;
    CHECK(same < 8);  // by chance one in 256; this cannot vary, the streams are fixed
  }
}

TEST_CASE("payload: a stream shifted by a few bytes is another", "[payload]") {
  const Payload payload(7, 3);
  for (std::uint64_t shift = 1; shift <= 256; ++shift) {
    CHECK(payload.mismatch(0, bytes_of(payload, shift, 16)) < 16);
  }
}

}  // namespace
}  // namespace weft::bench
