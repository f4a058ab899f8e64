// Spans of bytes that text, vectors and arrays of chars or std::byte turn into by themselves.
//
//   stream.write_all("220 ready\r\n");
//   std::array<std::byte, 4096> buffer;
//   stream.read(buffer);
#pragma once

#include <cstddef>
#include <ranges>
#include <span>
#include <string_view>
#include <type_traits>

namespace weft {

template <class T>
inline constexpr bool kIsByte =
    std::is_same_v<T, char> || std::is_same_v<T, std::byte> || std::is_same_v<T, unsigned char>;

template <class R>
concept ByteRange = std::ranges::contiguous_range<R> && kIsByte<std::ranges::range_value_t<R>>;

template <class R>
concept WritableByteRange =
    ByteRange<R> && !std::is_const_v<std::remove_reference_t<std::ranges::range_reference_t<R>>>;

// Bytes to read from. Does not own them.
struct Bytes : std::span<const std::byte> {
  Bytes() = default;
  template <ByteRange R>
  Bytes(const R& range)  // NOLINT(google-explicit-constructor): the point of the type
      : span(reinterpret_cast<const std::byte*>(std::ranges::data(range)),
             std::ranges::size(range)) {}
  Bytes(const char* text) : Bytes(std::string_view(text)) {}  // NOLINT(google-explicit-constructor)
};

// Bytes to write into. Does not own them.
struct MutableBytes : std::span<std::byte> {
  MutableBytes() = default;
  // For a MutableBytes it does what a copy does.
  template <WritableByteRange R>
  // NOLINTNEXTLINE(google-explicit-constructor, bugprone-forwarding-reference-overload)
  MutableBytes(R&& range)
      : span(reinterpret_cast<std::byte*>(std::ranges::data(range)), std::ranges::size(range)) {}
};

}  // namespace weft
