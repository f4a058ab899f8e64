// The main of every Catch2 test program: Catch2's own, with the exit codes that meson understands.
//
// Catch2 returns the number of failed cases, and 77 of them would read as "skipped".

#define CATCH_CONFIG_RUNNER
#include <cstdio>

#include <unistd.h>

#include <catch2/catch.hpp>

#include "tests/support/skip.h"

namespace {

constexpr int kFailed = 1;
constexpr int kSkipped = 77;

int cases_run = 0;
int cases_skipped = 0;
bool assertion_failed = false;

struct Observer : Catch::TestEventListenerBase {
  using TestEventListenerBase::TestEventListenerBase;

  void testCaseStarting(const Catch::TestCaseInfo&) override { ++cases_run; }
  bool assertionEnded(const Catch::AssertionStats& stats) override {
    assertion_failed |= !stats.assertionResult.isOk();
    return false;  // the reporter that prints still wants it
  }
};
CATCH_REGISTER_LISTENER(Observer)

void print_reason(const char* reason) {
  std::printf("skipped: %s\n", reason);
  std::fflush(stdout);
}

}  // namespace

namespace weft::test {

void skip_case(const char* reason) {
  ++cases_skipped;
  print_reason(reason);
}

void skip(const char* reason) {
  print_reason(reason);
  _exit(assertion_failed ? kFailed : kSkipped);
}

}  // namespace weft::test

int main(int argc, char** argv) {
  if (Catch::Session().run(argc, argv) != 0) return kFailed;
  return cases_run > 0 && cases_skipped >= cases_run ? kSkipped : 0;
}
