// What must hold of the switch whatever compiler, optimisation and code model the code around it has.
//
//   for (const test::SwitchCheck& check : test::switch_checks()) {
//     if (const char* wrong = check.run()) ...
//   }
//
// Promises: nothing here asserts or prints; nullptr means that all is well.
#pragma once

#include <cstdint>
#include <span>

namespace weft::test {

struct SwitchCheck {
  const char* id;  // of the list of acceptance tests
  const char* name;
  const char* (*run)(std::uint64_t seed);
};

std::span<const SwitchCheck> switch_checks();

}  // namespace weft::test
