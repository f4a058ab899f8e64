// BIG_FRAME names the function that this compilation defines; see big_frame.h.
#include "tests/sched/big_frame.h"

namespace weft::test {

const char* BIG_FRAME() {
  char frame[kBigFrameBytes];
  const char* address = frame;
  // Hides the array's bounds from the compiler, and the fact that its address outlives it.
  asm volatile("" : "+r"(address) : : "memory");
  *const_cast<char*>(address) = 0x5a;
  return address;
}

}  // namespace weft::test
