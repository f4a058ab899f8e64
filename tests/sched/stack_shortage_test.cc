// Stacks when the kernel says no: nothing but a nullptr and a reason, nothing lost, and no stack without
// a guard; and the guards of kernels that have none by advice.
#include <cerrno>
#include <string>
#include <vector>

#include <sys/mman.h>

#include <catch2/catch.hpp>

#include "runtime/os/memory.h"
#include "runtime/os/system.h"
#include "runtime/sched/stack_cache.h"
#include "runtime/sched/stack_pool.h"
#include "tests/death.h"
#include "tests/maps.h"

namespace {

using namespace weft::sched;
using weft::os::system::arm_fault;
using weft::os::system::Call;
using weft::os::system::disarm_faults;

constexpr std::size_t kBytes = std::size_t{256} << 10;  // also where the default is another
constexpr int kGuardInstall = 102;                      // MADV_GUARD_INSTALL
constexpr unsigned kForEver = ~0u;

// The faults end with the test case, also when a REQUIRE throws.
struct Faults {
  ~Faults() { disarm_faults(); }
};

bool names(const absl::Status& status, const std::string& word) {
  return std::string(status.message()).find(word) != std::string::npos;
}

}  // namespace

TEST_CASE("stack shortage: a call that fails for good costs a nullptr and nothing else",
          "[stack][G4]") {
  struct Case {
    Call call;
    int error;
    int advice;
    const char* operation;
    const char* remedy;
  };
  const auto each = GENERATE(
      Case{Call::kMmap, ENOMEM, -1, "mmap", "RLIMIT_AS"},
      Case{Call::kMmap, EAGAIN, -1, "mmap", "RLIMIT_MEMLOCK"},
      Case{Call::kMprotect, ENOMEM, PROT_READ | PROT_WRITE, "mmap", "vm.overcommit_memory"},
      Case{Call::kMadvise, ENOMEM, kGuardInstall, "MADV_GUARD_INSTALL", "cgroup"});
  const unsigned nth = GENERATE(0, 1, 2, 3, 64, 65, 70);
  const bool guards_fail = each.advice == kGuardInstall;
  if (nth > 3 && !guards_fail) return;  // a mapping holds many stacks
  const Faults faults;
  const std::size_t before = weft::test::mapping_count();
  {
    StackPool pool({.default_bytes = kBytes});
    StackCache cache(pool);
    CHECK(pool.shortage().ok());
    std::vector<Stack*> held;
    arm_fault(each.call, nth, each.error, kForEver, each.advice);
    for (Stack* stack; held.size() < 5000 && (stack = cache.acquire()) != nullptr;) {
      held.push_back(stack);
    }
    const absl::Status why = pool.shortage();
    INFO("call " << nth << ", " << held.size() << " stacks, " << why);
    CHECK(why.code() == absl::StatusCode::kResourceExhausted);
    CHECK(names(why, each.operation));
    CHECK(names(why, each.remedy));
    CHECK(names(why, std::to_string(kBytes >> 10) + " KiB"));
    if (guards_fail && nth <= 1) CHECK(held.empty());
    for (const Stack* stack : held) CHECK(weft::test::is_unreadable(stack->low - 1));
    disarm_faults();
    Stack* later = cache.acquire();
    REQUIRE(later != nullptr);
    CHECK(weft::test::faults(later->low - 1));
    cache.release(later);
    for (Stack* stack : held) cache.release(stack);
  }
  CHECK(weft::test::mapping_count() == before);
}

TEST_CASE("stack shortage: a call that fails once is got over", "[stack][G4]") {
  const Call call = GENERATE(Call::kMmap, Call::kMprotect, Call::kMadvise);
  const unsigned nth = GENERATE(0, 1, 2, 3, 4, 5);
  const Faults faults;
  StackPool pool({.default_bytes = kBytes});
  StackCache cache(pool);
  arm_fault(call, nth, ENOMEM);
  Stack* stack = cache.acquire();
  REQUIRE(stack != nullptr);
  CHECK(weft::test::faults(stack->low - 1));
  cache.release(stack);
}

TEST_CASE("stack shortage: idle memory of other sizes is given back before a stack is refused",
          "[stack][G4]") {
  const Faults faults;
  StackPool pool({.default_bytes = kBytes});
  {
    StackCache cache(pool);
    std::vector<Stack*> idle;
    for (int i = 0; i < 100; ++i) idle.push_back(cache.acquire());
    for (Stack* stack : idle) cache.release(stack);
  }
  REQUIRE(pool.usage().arenas == 2);
  StackCache cache(pool);
  // As many failures as there are sizes of arenas to try: the first attempt fails altogether.
  arm_fault(Call::kMmap, 0, ENOMEM, 7);
  Stack* stack = cache.acquire(64 << 10);
  REQUIRE(stack != nullptr);
  CHECK(pool.usage().arenas == 1);
  CHECK(pool.usage().warm + pool.usage().cold == 0);
  cache.release(stack);
}

TEST_CASE("stack shortage: a limit of the address space is reached and left again", "[stack][G4]") {
  if (weft::base::kAsan || weft::base::kTsan) return;  // their shadow exceeds every limit
  const auto child = weft::test::death_of([] {
    const rlimit limit = {std::size_t{256} << 20, std::size_t{256} << 20};
    if (setrlimit(RLIMIT_AS, &limit) != 0) _exit(77);
    StackPool pool({.default_bytes = kBytes});
    StackCache cache(pool);
    std::vector<Stack*> held;
    held.reserve(10'000);
    for (Stack* stack; (stack = cache.acquire()) != nullptr;) held.push_back(stack);
    if (held.size() < 500 || !names(pool.shortage(), "RLIMIT_AS")) _exit(1);
    for (const Stack* stack : held) {
      if (!weft::test::is_unreadable(stack->low - 1)) _exit(2);
    }
    for (Stack* stack : held) cache.release(stack);
    // Only by giving back the idle arenas of the other size is there room for this one.
    Stack* big = cache.acquire(std::size_t{64} << 20);
    if (big == nullptr) _exit(3);
    cache.release(big);
    _exit(0);
  });
  CHECK(child.signal == 0);
  CHECK(child.status == 0);
}

TEST_CASE("stack shortage: prewarm says when it could not have all", "[stack][G4]") {
  const Faults faults;
  StackPool pool({.default_bytes = kBytes, .prewarm = 100});
  arm_fault(Call::kMadvise, 50, ENOMEM, kForEver, kGuardInstall);
  const absl::Status status = pool.prewarm();
  CHECK(status.code() == absl::StatusCode::kResourceExhausted);
  CHECK(pool.usage().warm == 49);  // one guard went to the end of the arena
  CHECK(pool.usage().out == 0);
  disarm_faults();
  CHECK(pool.prewarm().ok());
  CHECK(pool.usage().warm == 100);
}

TEST_CASE("stack shortage: without guards by advice there are guards by protection",
          "[stack][G4]") {
  const Faults faults;
  arm_fault(Call::kMadvise, 0, EINVAL, kForEver, kGuardInstall);
  StackPool pool({.default_bytes = kBytes});
  StackCache cache(pool);
  std::vector<Stack*> stacks;
  for (int i = 0; i < 100; ++i) stacks.push_back(cache.acquire());
  const unsigned tries = weft::os::system::calls_seen(Call::kMadvise);
  CHECK(tries <= 2 * pool.usage().arenas);  // twice an arena: as it is, and unlocked
  for (const Stack* stack : stacks) {
    REQUIRE(stack != nullptr);
    CHECK(weft::test::is_unreadable(stack->low - 1));
    CHECK_FALSE(weft::test::is_unreadable(stack->low));
  }
  for (Stack* stack : stacks) cache.release(stack);
}

TEST_CASE("stack shortage: guards by protection end at a budget, with a reason and room to live",
          "[stack][G4]") {
  const Faults faults;
  if (weft::os::map_count_limit() > 200'000) {
    WARN("skipped: vm.max_map_count is too large to be used up here");
    return;
  }
  arm_fault(Call::kMadvise, 0, EINVAL, kForEver, kGuardInstall);
  std::size_t reached = 0;
  for (int round = 0; round < 2; ++round) {  // twice: the budget comes back
    StackPool pool({.default_bytes = kStackBytesMin});
    StackCache cache(pool);
    std::vector<Stack*> held;
    for (Stack* stack; (stack = cache.acquire()) != nullptr;) held.push_back(stack);
    const absl::Status why = pool.shortage();
    CHECK(why.code() == absl::StatusCode::kResourceExhausted);
    CHECK(names(why, "vm.max_map_count"));
    CHECK(names(why, "6.13"));
    CHECK(held.size() > weft::os::map_count_limit() / 8 * 3);
    if (round == 1) CHECK(held.size() == reached);
    reached = held.size();
    CHECK(weft::test::mapping_count() < weft::os::map_count_limit() / 16 * 15);
    CHECK(weft::test::is_unreadable(held.back()->low - 1));
    for (Stack* stack : held) cache.release(stack);
  }
}

TEST_CASE("stack shortage: a mapping that the kernel refuses to unmap is used again",
          "[stack][G4]") {
  const Faults faults;
  StackPool pool({.default_bytes = kBytes});
  StackCache cache(pool);
  std::vector<Stack*> stacks;
  for (int i = 0; i < 20; ++i) stacks.push_back(cache.acquire());
  for (Stack* stack : stacks) cache.release(stack);
  arm_fault(Call::kMunmap, 0, ENOMEM, kForEver);
  arm_fault(Call::kMmap, 0, ENOMEM, kForEver);
  CHECK(cache.acquire(1 << 20) == nullptr);  // reclaims as much as it can, and ends
  CHECK(pool.usage().cold == 20);
  disarm_faults();
  Stack* stack = cache.acquire();
  REQUIRE(stack != nullptr);
  CHECK(weft::test::faults(stack->low - 1));
  cache.release(stack);
}
