// All checks of the switch as a small program, for switch_matrix.py: no test framework, quickly compiled.
//
//   switch_checks_main SEED       prints what is wrong; 1 when something is
#include <cstdio>
#include <cstdlib>

#include "tests/arch/x86_64/switch_checks.h"

int main(int argc, char** argv) {
  const std::uint64_t seed = argc > 1 ? std::strtoull(argv[1], nullptr, 0) : 1;
  int failures = 0;
  for (const weft::test::SwitchCheck& check : weft::test::switch_checks()) {
    if (const char* wrong = check.run(seed)) {
      std::printf("%s (%s): %s\n", check.name, check.id, wrong);
      ++failures;
    }
  }
  return failures == 0 ? 0 : 1;
}
