// The floating-point control words: a fiber's own where it asks for that, the process's for all others.
#include "arch/x86_64/fp_control.h"

#include <weft/runtime.h>

#include <cstdint>
#include <string>

#include <catch2/catch.hpp>

#include "tests/abi/migration.h"
#include "tests/death.h"
#include "tests/support/random.h"

namespace weft::test {
namespace {

using arch::FpControl;
using arch::load_fp_control;
using arch::read_fp_control;

// Any rounding, flushing and precision; all exceptions stay masked.
FpControl random_control(Random& random) {
  constexpr std::uint32_t kDenormalsAreZero = 1 << 6, kFlushToZero = 1 << 15;
  constexpr std::uint16_t kPrecisions[] = {0x000, 0x200, 0x300};
  FpControl control;
  control.mxcsr |= static_cast<std::uint32_t>(random.below(4) << 13);
  if (random.one_in(2)) control.mxcsr |= kDenormalsAreZero;
  if (random.one_in(2)) control.mxcsr |= kFlushToZero;
  control.x87 =
      static_cast<std::uint16_t>(0x07f | kPrecisions[random.below(3)] | random.below(4) << 10);
  return control;
}

// Restores what this thread had.
class WithFpControl {
 public:
  explicit WithFpControl(const FpControl& control) { load_fp_control(control); }
  ~WithFpControl() { load_fp_control(before_); }
  WithFpControl(const WithFpControl&) = delete;
  WithFpControl& operator=(const WithFpControl&) = delete;

 private:
  FpControl before_ = read_fp_control();
};

#ifndef NDEBUG
// First of all: where a runtime has been before, a forked child may start none.
TEST_CASE("fp control: a debug build ends a fiber that changes it for all", "[abi][A2]") {
  const Death death = death_of([] {
    run([] {
      load_fp_control({.mxcsr = 0x1f80 | 1 << 13});
      this_fiber::yield();
    });
  });
  CHECK(death.signal == SIGABRT);
  CHECK(death.errors.find("without preserve_fp_control") != std::string::npos);
}
#endif

TEST_CASE("fp control: a hundred fibers keep their own over 10,000 switches each", "[abi][A2]") {
  constexpr int kFibers = 100, kSwitches = 10'000;
  Random random(seed());
  Migrations migrations;
  const int status = run(
      [&] {
        Scope scope;
        for (int i = 0; i < kFibers; ++i) {
          scope.spawn(
              [&migrations, seed = random.next()] {
                Random own(seed);
                migrations.expect(read_fp_control() == FpControl{}, "a new fiber has another's");
                for (int k = 0; k < kSwitches; ++k) {
                  const FpControl mine = random_control(own);
                  load_fp_control(mine);
                  // A wake on the other worker now and then: a yield goes there only when stolen.
                  if (k % 500 == 0) {
                    migrations.park(own);
                  } else {
                    this_fiber::yield();
                  }
                  migrations.expect(read_fp_control() == mine, "a fiber found another's");
                }
                // Ends with its own: nobody may inherit it.
              },
              {.preserve_fp_control = true});
          if (i % 10 != 0) continue;
          scope.spawn([&migrations] {
            for (int k = 0; k < kSwitches; ++k) {
              migrations.expect(read_fp_control() == FpControl{}, "another fiber's are seen");
              this_fiber::yield();
            }
          });
        }
        return scope.join();
      },
      two_shuffling_workers());
  CHECK(status == 0);
  CHECK(migrations.wrong() == "");
  CHECK(migrations.seen() > 10);
}

TEST_CASE("fp control: fibers have what the process has set, before and after ones with their own",
          "[abi][A2]") {
  Random random(seed());
  for (int round = 0; round < 20; ++round) {
    const FpControl of_process = random_control(random);
    const WithFpControl set(of_process);
    Migrations migrations;
    const int status = run(
        [&] {
          Scope scope;
          for (int i = 0; i < 10; ++i) {
            scope.spawn(
                [&migrations, of_process, mine = random_control(random)] {
                  migrations.expect(read_fp_control() == of_process, "a new fiber has another's");
                  load_fp_control(mine);
                  this_fiber::yield();
                  migrations.expect(read_fp_control() == mine, "a fiber found another's");
                },
                {.preserve_fp_control = true});
            scope.spawn([&migrations, of_process] {
              migrations.expect(read_fp_control() == of_process, "a fiber lost the process's");
              this_fiber::yield();
              migrations.expect(read_fp_control() == of_process, "a yield lost the process's");
            });
          }
          return scope.join();
        },
        two_shuffling_workers());
    CHECK(status == 0);
    CHECK(migrations.wrong() == "");
  }
}

}  // namespace
}  // namespace weft::test
