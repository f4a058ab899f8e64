#include "runtime/base/check.h"

#include <cstdio>
#include <cstdlib>

#include <unistd.h>

namespace weft::base {

void check_failed(const char* file, int line, const char* condition, const char* message) {
  char text[512];  // the stack, not the heap: the heap may be what is broken
  const int length =
      std::snprintf(text, sizeof text, "weft: %s:%d: %s (%s)\n", file, line, message, condition);
  const auto size = static_cast<std::size_t>(length) < sizeof text ? length : sizeof text - 1;
  if (write(STDERR_FILENO, text, size) < 0) {
    // Nobody left to tell.
  }
  std::abort();
}

}  // namespace weft::base

#if WEFT_PLANT == 58
extern "C" __attribute__((visibility("default"))) void stray_name();
void stray_name() {}
#endif
