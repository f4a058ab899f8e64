// The report of an overflow: what it says, whom it says it of, what happens to the process afterwards, and
// that nothing of it stays behind.
#include "runtime/sched/overflow.h"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <string>

#include <sys/auxv.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "runtime/base/sanitizer.h"
#include "runtime/os/system.h"
#include "runtime/sched/stack_cache.h"
#include "runtime/sched/stack_pool.h"
#include "tests/death.h"
#include "tests/maps.h"
#include "tests/sched/big_frame.h"
#include "tests/sched/stack_thread.h"

namespace {

using namespace weft::sched;
using weft::test::Death;
using weft::test::death_of;
using weft::test::run_on;

struct Owner {
  int id;
  const char* name;
};

std::size_t describe(void* owner, char* text, std::size_t size) {
  const auto& who = *static_cast<const Owner*>(owner);
  return static_cast<std::size_t>(
      std::snprintf(text, size, "fiber %d \"%s\" spawned at here.cc:12", who.id, who.name));
}

// Two neighbouring stacks; the upper one has an owner.
struct Stacks {
  Stacks() : pool({.default_bytes = weft::test::kThreadStackBytes}), cache(pool) {
    lower = cache.acquire();
    upper = cache.acquire();
    upper->owner = &owner;
  }
  ~Stacks() {
    cache.release(upper);
    cache.release(lower);
  }
  StackPool pool;
  StackCache cache;
  Owner owner{7, "deep"};
  Stack* lower;
  Stack* upper;
};

volatile std::size_t depth_max = ~std::size_t{0};  // deeper than any stack, which no compiler knows
char* volatile nowhere = reinterpret_cast<char*>(64);  // on the page that is never mapped

// Every frame is kept by what comes after the call.
[[gnu::noinline]] std::size_t recurse(std::size_t depth) {
  volatile char local[64];
  local[0] = static_cast<char>(depth);
  const std::size_t below = depth < depth_max ? recurse(depth + 1) : 0;
  return below + static_cast<std::size_t>(local[0]);
}

Death overflow_of(const Stacks& stacks) {
  return death_of([&] {
    install_overflow_report(describe);
    run_on(*stacks.upper, [] { _exit(recurse(0) == 1 ? 1 : 2); });
  });
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

struct sigaction current_action(int signal) {
  struct sigaction action = {};
  sigaction(signal, nullptr, &action);
  return action;
}

void former_handler(int) { _exit(42); }
void former_handler_with_info(int, siginfo_t* info, void*) {
  _exit(info->si_addr == nullptr ? 43 : 44);
}

}  // namespace

TEST_CASE(
    "overflow: the report names the fiber, its stack and the frames, then the process dies of it",
    "[overflow][G1]") {
  const Stacks stacks;
  const Death death = overflow_of(stacks);
  INFO(death.errors);
  CHECK(death.signal == SIGSEGV);
  std::uintptr_t low = 0;
  std::uintptr_t end = 0;
  std::uintptr_t touched = 0;
  REQUIRE(
      std::sscanf(death.errors.c_str(),
                  "weft: stack overflow in fiber 7 \"deep\" spawned at here.cc:12: stack of 1024 "
                  "KiB at [%zx, %zx), touched %zx\n",
                  &low, &end, &touched) == 3);
  CHECK(low == reinterpret_cast<std::uintptr_t>(stacks.upper->low));
  CHECK(end > reinterpret_cast<std::uintptr_t>(stacks.upper));
  CHECK(touched < low);
  CHECK(touched >= low - kGuardBytesMax);
  // The backtrace: the innermost frames, how many are left out, and the first ones of the thread.
  CHECK(contains(death.errors, " frames ...\n"));
  CHECK(std::count(death.errors.begin(), death.errors.end(), '\n') == 1 + 24 + 1 + 8);
  CHECK(contains(death.errors, "libc.so"));
}

TEST_CASE("overflow: a stack without an owner is reported all the same", "[overflow]") {
  Stacks stacks;
  stacks.upper->owner = nullptr;
  const Death death = overflow_of(stacks);
  CHECK(death.signal == SIGSEGV);
  CHECK(contains(death.errors, "weft: stack overflow in a fiber: stack of 1024 KiB"));
}

TEST_CASE("overflow: who touches somebody else's guard is not taken for its fiber", "[overflow]") {
  const Stacks stacks;
  const Death death = death_of([&] {
    install_overflow_report(describe);
    *reinterpret_cast<volatile char*>(stacks.upper->low - 1) = 1;
  });
  CHECK(death.signal == SIGSEGV);
  CHECK(contains(death.errors, "weft: stray access to the guard of a fiber: stack of 1024 KiB"));
  CHECK_FALSE(contains(death.errors, "deep"));
}

TEST_CASE("overflow: other faults, and signals that were sent, pass without a word", "[overflow]") {
  const Stacks stacks;
  const int kind = GENERATE(0, 1, 2);
  const Death death = death_of([&] {
    install_overflow_report(describe);
    run_on(*stacks.upper, [kind] {
      if (kind == 0) *nowhere = 1;
      if (kind == 1) kill(getpid(), SIGSEGV);
      if (kind == 2) kill(getpid(), SIGBUS);
      pause();
    });
  });
  CHECK(death.signal == (kind == 2 ? SIGBUS : SIGSEGV));
  CHECK(death.errors.empty());
}

TEST_CASE("overflow: the handler that was there before gets the fault", "[overflow]") {
  const Stacks stacks;
  const bool with_info = GENERATE(false, true);
  const Death death = death_of([&] {
    struct sigaction former = {};
    if (with_info) {
      former.sa_sigaction = former_handler_with_info;
      former.sa_flags = SA_SIGINFO;
    } else {
      former.sa_handler = former_handler;
    }
    sigaction(SIGSEGV, &former, nullptr);
    install_overflow_report(describe);
    run_on(*stacks.upper, [] { _exit(recurse(0) == 1 ? 1 : 2); });
  });
  CHECK(death.signal == 0);
  CHECK(death.status == (with_info ? 44 : 42));
  CHECK(contains(death.errors, "weft: stack overflow in fiber 7"));
}

TEST_CASE("overflow: a sent signal that was ignored stays ignored, a fault does not",
          "[overflow]") {
  const Death death = death_of([] {
    std::signal(SIGSEGV, SIG_IGN);
    install_overflow_report(describe);
    raise(SIGSEGV);
    *nowhere = 1;
  });
  CHECK(death.signal == SIGSEGV);
  CHECK(death.errors.empty());
}

TEST_CASE("overflow: the last uninstall puts back what was there", "[overflow]") {
  const Death death = death_of([] {
    const auto same = [](void (*handler)(int)) {
      return current_action(SIGSEGV).sa_handler == handler &&
             current_action(SIGBUS).sa_handler == SIG_DFL;
    };
    std::signal(SIGSEGV, former_handler);
    for (int round = 0; round < 3; ++round) {
      install_overflow_report(describe);
      install_overflow_report(describe);
      uninstall_overflow_report();
      if (same(former_handler)) _exit(1);
      uninstall_overflow_report();
      if (!same(former_handler)) _exit(2);
    }
  });
  CHECK(death.status == 0);
}

TEST_CASE("overflow: a handler on top of ours is not torn out, and never called in a circle",
          "[overflow]") {
  static struct sigaction below;
  const Death death = death_of([] {
    std::signal(SIGSEGV, former_handler);
    install_overflow_report(describe);
    struct sigaction above = {};
    above.sa_flags = SA_SIGINFO;
    above.sa_sigaction = [](int signal, siginfo_t* info, void* context) {
      below.sa_sigaction(signal, info, context);
    };
    sigaction(SIGSEGV, &above, &below);
    uninstall_overflow_report();
    if (current_action(SIGSEGV).sa_sigaction != above.sa_sigaction) _exit(1);
    install_overflow_report(describe);
    if (current_action(SIGSEGV).sa_sigaction != above.sa_sigaction) _exit(2);
    raise(SIGSEGV);  // above, ours, the former one
  });
  CHECK(death.status == 42);
}

TEST_CASE("overflow: an alternate stack is big enough, guarded, and leaves no trace",
          "[overflow]") {
  const std::size_t before = weft::test::mapping_count();
  stack_t former = {};
  sigaltstack(nullptr, &former);
  {
    AlternateStack alternate;
    REQUIRE(alternate.enter().ok());
    stack_t now = {};
    sigaltstack(nullptr, &now);
    CHECK(now.ss_size >= (64 << 10));
    CHECK(now.ss_size >= 4 * getauxval(AT_MINSIGSTKSZ));
    const auto* low = static_cast<const char*>(now.ss_sp);
    CHECK(weft::test::faults(low - 1));
    CHECK_FALSE(weft::test::faults(low));
  }
  stack_t after = {};
  sigaltstack(nullptr, &after);
  CHECK(after.ss_sp == former.ss_sp);
  CHECK(after.ss_flags == former.ss_flags);
  CHECK(weft::test::mapping_count() == before);
}

TEST_CASE("overflow: an alternate stack that cannot be had says so and leaves nothing",
          "[overflow][G4]") {
  using weft::os::system::Call;
  const Call call = GENERATE(Call::kMmap, Call::kMprotect, Call::kSigaltstack);
  const std::size_t before = weft::test::mapping_count();
  AlternateStack alternate;
  weft::os::system::arm_fault(call, 0, ENOMEM);
  const absl::Status status = alternate.enter();
  weft::os::system::disarm_faults();
  CHECK(status.code() == absl::StatusCode::kResourceExhausted);
  CHECK(contains(std::string(status.message()), "Cannot allocate memory"));
  CHECK(weft::test::mapping_count() == before);
}

TEST_CASE("overflow: a frame larger than the guard is caught when it is probed", "[overflow][G2]") {
  const Stacks stacks;
  const Death death = death_of([&] {
    install_overflow_report(describe);
    run_on(*stacks.upper, [] { weft::test::big_frame_probed(); });
  });
  CHECK(death.signal == SIGSEGV);
  CHECK(contains(death.errors, "weft: stack overflow in fiber 7 \"deep\""));
}

// Documents the hole: why users are told to compile with -fstack-clash-protection.
TEST_CASE("overflow: an unprobed frame jumps over the guard into the next stack",
          "[overflow][G2]") {
  if (weft::base::kAsan || weft::base::kTsan) return;  // the sanitizer sees the frame by itself
  const Stacks stacks;
  const char* written = nullptr;
  const Death death = death_of([&] {
    run_on(*stacks.upper, [&] { written = weft::test::big_frame_unprobed(); });
    const auto* low = reinterpret_cast<const char*>(stacks.lower->low);
    const auto* end = reinterpret_cast<const char*>(stacks.lower + 1);
    _exit(written >= low && written < end && *written == 0x5a ? 0 : 1);
  });
  CHECK(death.signal == 0);
  CHECK(death.status == 0);
}
