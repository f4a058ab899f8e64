// The control words of floating point: how SSE and the x87 unit round, flush to zero and trap.
//
//   const FpControl before = read_fp_control();
//   ...
//   load_fp_control(before);
//
// The psABI calls them callee-saved, but for the flags that mxcsr collects: those are nobody's, and are left
// out of comparisons. A new kernel thread has its creator's.
#pragma once

#include <cstdint>

namespace weft::arch {

struct FpControl {
  static constexpr std::uint32_t kMxcsrFlags = 0x3f;

  std::uint32_t mxcsr = 0x1f80;  // as a process starts
  std::uint16_t x87 = 0x37f;

  bool operator==(const FpControl& other) const {
    return ((mxcsr ^ other.mxcsr) & ~kMxcsrFlags) == 0 && x87 == other.x87;
  }
};

// Call from: any thread. Never parks.
inline FpControl read_fp_control() {
  FpControl now;
  asm volatile("stmxcsr %0\n\tfnstcw %1" : "=m"(now.mxcsr), "=m"(now.x87));
  return now;
}

inline void load_fp_control(const FpControl& wanted) {
  asm volatile("ldmxcsr %0\n\tfldcw %1" : : "m"(wanted.mxcsr), "m"(wanted.x87));
}

}  // namespace weft::arch
