// Boost.Context and weft in one program, one inside the other: neither takes what the other keeps.
//
// A context of Boost's runs on the fiber that resumes it, is left and resumed again, and the fiber parks and
// changes its worker between. It parks on its own stack only, and leaves no catch open inside a context:
// Boost keeps the thread's exception globals no more than most.
#include <weft/runtime.h>

#include <cstdint>
#include <exception>
#include <stdexcept>
#include <string>
#include <utility>

#include <boost/context/fiber.hpp>

#include <catch2/catch.hpp>

#include "tests/abi/migration.h"
#include "tests/support/random.h"

namespace weft::test {
namespace {

namespace ctx = boost::context;

// Deep enough that a wrong stack would show.
[[gnu::noinline]] std::uint64_t descend(int levels, std::uint64_t value) {
  volatile std::uint64_t kept = value;
  if (levels == 0) throw std::runtime_error(std::to_string(value));
  const std::uint64_t below = descend(levels - 1, value);
  return kept + below;
}

// What a descent throws, caught.
std::string thrown_at_depth(std::uint64_t value) {
  try {
    descend(100, value);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

// Resumes a context of Boost's `rounds` times, and parks between.
void take_turns(Random& random, Migrations& migrations, int rounds) {
  std::uint64_t said = 0;
  ctx::fiber context([&](ctx::fiber&& back) -> ctx::fiber {
    for (std::uint64_t turn = 1;; ++turn) {
      migrations.expect(thrown_at_depth(turn) == std::to_string(turn),
                        "another exception was caught in a context");
      said = turn;
      back = std::move(back).resume();
    }
  });
  for (int round = 1; round <= rounds; ++round) {
    const std::uint64_t mark = random.next();
    try {
      throw std::runtime_error(std::to_string(mark));
    } catch (const std::runtime_error& mine) {
      context = std::move(context).resume();  // throws and catches below our catch
      migrations.park(random);
      migrations.expect(mine.what() == std::to_string(mark), "our caught exception is another one");
    }
    migrations.expect(said == static_cast<std::uint64_t>(round), "a turn of a context was lost");
    migrations.expect(std::current_exception() == nullptr, "an exception stays behind");
  }
}

TEST_CASE("boost: contexts and fibers in turn, with exceptions and changes of the worker",
          "[abi]") {
  constexpr int kFibers = 16;
  Random random(seed());
  Migrations migrations;
  const int status =
      run_fibers(kFibers, random, [&migrations](Random& own) { take_turns(own, migrations, 500); });
  CHECK(status == 0);
  CHECK(migrations.wrong() == "");
  CHECK(migrations.seen() > 10);
}

TEST_CASE("boost: a runtime runs while the thread that started it is in a context", "[abi]") {
  int sum = 0;
  ctx::fiber context([&sum](ctx::fiber&& back) {
    for (int i = 1; i <= 3; ++i) {
      run([&sum, i] { sum += i; }, {.workers = 1, .handle_signals = false});
      back = std::move(back).resume();
    }
    return std::move(back);
  });
  for (int i = 1; i <= 3; ++i) context = std::move(context).resume();
  CHECK(sum == 6);
}

}  // namespace
}  // namespace weft::test
