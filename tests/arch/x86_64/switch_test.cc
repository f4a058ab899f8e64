// The switch by itself, with fibers of a few lines and no scheduler.
#include "arch/x86_64/switch.h"

#include <cstdlib>
#include <cstring>
#include <string>

#include <unistd.h>

#include <catch2/catch.hpp>

#include "tests/arch/x86_64/small_fibers.h"
#include "tests/arch/x86_64/switch_checks.h"
#include "tests/support/random.h"

namespace weft::test {
namespace {

std::string run_check(std::string_view id, int seeds) {
  Random random(seed());
  for (const SwitchCheck& check : switch_checks()) {
    if (check.id != id) continue;
    for (int i = 0; i < seeds; ++i) {
      alarm(60);  // a register that is lost may also be a loop's: then this ends it
      if (const char* wrong = check.run(random.next())) return wrong;
    }
    return "";
  }
  return "no such check";
}

TEST_CASE("switch: callee-saved registers survive a million switches a seed", "[switch][A1]") {
  CHECK(run_check("A1", std::getenv("WEFT_SOAK") != nullptr ? 64 : 8) == "");
}

TEST_CASE("switch: what a compiler keeps in caller-saved registers survives", "[switch][A3]") {
  CHECK(run_check("A3", 1) == "");
}

TEST_CASE("switch: a fiber's entry and its locals are aligned for every vector", "[switch][A4]") {
  CHECK(run_check("A4", 1) == "");
}

TEST_CASE("switch: backtraces are exact at depths 1 to 500 and end in weft_entry", "[switch][A7]") {
  CHECK(run_check("A7", 1) == "");
}

TEST_CASE("switch: exceptions unwind a fiber's stack", "[switch]") {
  CHECK(run_check("A8", 1) == "");
}

TEST_CASE("switch: a loop without fibers returns, and so does a second one", "[switch]") {
  SmallFibers none;
  none.run();
  none.run();
}

TEST_CASE("switch: the frame-pointer chain of a fresh stack ends in zeros", "[switch]") {
  SmallFibers fibers;
  const SmallFiber& fiber = fibers.add([](SmallFiber&) {});
  const auto& image = *static_cast<const arch::SuspendedImage*>(fiber.rsp);
  const auto* last = reinterpret_cast<const std::uint64_t*>(image.rbp);
  CHECK(last[0] == 0);
  CHECK(last[1] == 0);
  fibers.run();
}

}  // namespace
}  // namespace weft::test
