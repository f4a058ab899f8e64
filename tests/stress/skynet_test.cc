// Skynet: a tree in which every fiber spawns ten, down to a million leaves, and adds up what they return.
// 1,111,111 fibers; the sum of the leaves' numbers is known. [C2]

#include <weft/fiber.h>
#include <weft/runtime.h>
#include <weft/scope.h>

#include <cstdint>
#include <cstdlib>
#include <vector>

#include <catch2/catch.hpp>

#include "tests/support/on_fiber.h"
#include "tests/support/sanitizer.h"

using namespace weft;

namespace {

std::int64_t skynet(std::int64_t first, std::int64_t leaves) {
  if (leaves == 1) return first;
  constexpr std::int64_t kChildren = 10;
  Scope scope;
  std::vector<Fiber<std::int64_t>> children;
  children.reserve(kChildren);
  for (std::int64_t i = 0; i < kChildren; ++i) {
    const std::int64_t share = leaves / kChildren;
    children.push_back(scope.spawn([first, share, i] { return skynet(first + i * share, share); }));
  }
  std::int64_t sum = 0;
  for (auto& child : children) sum += child.join().value();
  return scope.join().ok() ? sum : -1;
}

}  // namespace

TEST_CASE("scheduler: skynet adds up", "[scheduler][C2]") {
  constexpr bool kSanitized = test::kAddressSanitizer || test::kThreadSanitizer;
  const std::int64_t leaves = kSanitized ? 10'000 : 1'000'000;
  const int rounds = std::getenv("WEFT_SOAK") != nullptr ? 10 : 1;
  const int workers = GENERATE(1, 2);
  for (int round = 0; round < rounds; ++round) {
    std::int64_t sum = 0;
    test::on_fiber({.workers = workers}, [&] { sum = skynet(0, leaves); });
    CHECK(sum == leaves * (leaves - 1) / 2);
  }
}
