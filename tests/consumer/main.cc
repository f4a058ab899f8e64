// The smallest program of somebody who uses weft: both consumers build and run it.

#include <weft/runtime.h>

int main() {
  return weft::run([] { return 0; });
}
