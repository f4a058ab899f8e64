// A wrong byte alone says little; what matters is whether bytes were lost, repeated or
// given to the wrong connection. Since every stream can be computed at every position,
// we look for the place where the bytes that came do fit.
#include "bench/load/connection.h"

#include <algorithm>
#include <cstdio>

namespace weft::bench {

namespace {

// Four bytes fit by chance once in four billion places; we try a few million at most.
constexpr std::size_t kEnoughToTell = 4;
constexpr std::uint64_t kFarthestShift = 1 << 16;
constexpr std::uint64_t kPlacesPerConnection = 4096;

bool fits(const Payload& payload, std::uint64_t position, std::span<const std::byte> bytes) {
  return payload.mismatch(position, bytes) == bytes.size();
}

std::string find_in_own_stream(const Connection& connection, std::uint64_t position,
                               std::span<const std::byte> bytes) {
  for (std::uint64_t shift = 1; shift <= kFarthestShift; ++shift) {
    if (fits(connection.payload, position + shift, bytes)) {
      return "; " + std::to_string(shift) + " bytes are missing before it";
    }
    if (shift <= position && fits(connection.payload, position - shift, bytes)) {
      return "; the last " + std::to_string(shift) + " bytes came twice";
    }
  }
  return {};
}

std::string find_in_other_streams(const Connection& connection, std::span<const std::byte> bytes,
                                  std::uint32_t size_bytes, const std::vector<Connection>& all) {
  for (const Connection& other : all) {
    if (&other == &connection) continue;
    // What is or was on its way on the other one: from a request before its last reply
    // to its end.
    const std::uint64_t begin =
        other.received - std::min<std::uint64_t>(other.received, size_bytes);
    const std::uint64_t end = std::min(other.sent, begin + kPlacesPerConnection);
    for (std::uint64_t position = begin; position < end; ++position) {
      if (fits(other.payload, position, bytes)) {
        return "; it belongs to connection " + std::to_string(other.number) + ", byte " +
               std::to_string(position);
      }
    }
  }
  return {};
}

}  // namespace

std::string describe_wrong_byte(const Connection& connection, std::span<const std::byte> in,
                                std::size_t wrong, std::uint32_t size_bytes,
                                const std::vector<Connection>& all) {
  const std::uint64_t position = connection.received + wrong;
  char text[160];
  std::snprintf(
      text, sizeof text,
      "wrong byte: connection %u, byte %llu (byte %llu of reply %llu): got %02x, sent %02x",
      connection.number, static_cast<unsigned long long>(position),
      static_cast<unsigned long long>(position % size_bytes),
      static_cast<unsigned long long>(position / size_bytes), std::to_integer<unsigned>(in[wrong]),
      std::to_integer<unsigned>(connection.payload.at(position)));
  std::string description = text;
  const auto rest = in.subspan(wrong).first(std::min<std::size_t>(in.size() - wrong, 16));
  if (rest.size() < kEnoughToTell) return description;
  std::string origin = find_in_own_stream(connection, position, rest);
  if (origin.empty()) origin = find_in_other_streams(connection, rest, size_bytes, all);
  return description + origin;
}

}  // namespace weft::bench
