// A function with a frame far larger than a guard, in two builds: with and without
// -fstack-clash-protection. Each writes one byte at the far end of its frame.
#pragma once

#include <cstddef>

namespace weft::test {

// Larger than the usable part of the stack plus its guard: unprobed, the byte lands in the slot below.
inline constexpr std::size_t kBigFrameBytes = (std::size_t{1} << 20) + (std::size_t{256} << 10);

// Returns the address that it wrote to.
const char* big_frame_probed();
const char* big_frame_unprobed();

}  // namespace weft::test
