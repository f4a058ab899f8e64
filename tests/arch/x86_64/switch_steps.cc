// Two fibers that switch a few times, for step_switch.gdb.py to follow instruction by instruction.
#include "tests/arch/x86_64/small_fibers.h"

int main() {
  weft::test::SmallFibers fibers;
  for (int i = 0; i < 2; ++i) {
    fibers.add([](weft::test::SmallFiber& self) {
      self.yield();
      self.yield();
    });
  }
  fibers.run();
  return 0;
}
