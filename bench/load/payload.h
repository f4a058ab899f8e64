// Payload: the endless pseudo-random byte stream that one connection sends and must get
// back.
//
//   Payload payload(seed, connection);
//   payload.fill(sent, out);                              // the bytes from position `sent` on
//   if (payload.mismatch(received, in) != in.size()) ...  // some byte is not the one we sent
//
// Promises: any position can be asked for at any time, so nothing that was sent has to
// be kept; two connections have unrelated streams, so that a reply given to the wrong
// one is seen at once.
//
// Eight bytes come from one step of the SplitMix64 generator over (key + position).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace weft::bench {

class Payload {
 public:
  Payload() = default;
  Payload(std::uint64_t seed, std::uint64_t connection)
      : key_(scramble(seed + scramble(connection + 1))) {}

  void fill(std::uint64_t position, std::span<std::byte> out) const {
    for_each_piece(position, out.size(),
                   [&](std::size_t at, const std::byte* bytes, std::size_t n) {
                     std::memcpy(out.data() + at, bytes, n);
                     return true;
                   });
  }

  // Returns the index of the first byte of `in` that differs from the stream at
  // `position`, or in.size() when all are right.
  std::size_t mismatch(std::uint64_t position, std::span<const std::byte> in) const {
    std::size_t wrong = in.size();
    for_each_piece(position, in.size(), [&](std::size_t at, const std::byte* bytes, std::size_t n) {
      if (std::memcmp(in.data() + at, bytes, n) == 0) return true;
      const auto* begin = in.data() + at;
      wrong = static_cast<std::size_t>(std::mismatch(begin, begin + n, bytes).first - in.data());
      return false;
    });
    return wrong;
  }

  std::byte at(std::uint64_t position) const {
    const std::uint64_t word = word_at(position);
    return reinterpret_cast<const std::byte*>(&word)[position % kWord];
  }

 private:
  static constexpr std::size_t kWord = sizeof(std::uint64_t);

  static std::uint64_t scramble(std::uint64_t z) {
    z += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

  // The eight bytes of which the one at `position` is part.
  std::uint64_t word_at(std::uint64_t position) const {
    return scramble(key_ + position / kWord * 0x9e3779b97f4a7c15);
  }

  // Calls visit(index, bytes, length) for consecutive pieces of at most a word, until
  // it says false. Whole words are the only case that has to be fast: their length is a
  // constant to the compiler.
  template <class Visit>
  void for_each_piece(std::uint64_t position, std::size_t size, Visit visit) const {
    std::size_t at = 0;
    while (at < size) {
      const std::uint64_t word = word_at(position + at);
      const auto* bytes = reinterpret_cast<const std::byte*>(&word);
      const std::size_t skip = (position + at) % kWord;
      if (skip == 0 && size - at >= kWord) {
        if (!visit(at, bytes, kWord)) return;
        at += kWord;
      } else {
        const std::size_t n = std::min(kWord - skip, size - at);
        if (!visit(at, bytes + skip, n)) return;
        at += n;
      }
    }
  }

  std::uint64_t key_ = 0;
};

}  // namespace weft::bench
