// Real limits of a process, reached by fibers: the address space, its data, and the number of mappings. Each
// case is a child of its own, in which a runtime runs into the limit and goes on.
//
// A cgroup's limit is not among them: the kernel ends the process then, and asks nobody.

#include <weft/fiber.h>
#include <weft/runtime.h>
#include <weft/scope.h>
#include <weft/time.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "runtime/os/memory.h"
#include "tests/death.h"
#include "tests/maps.h"
#include "tests/support/on_fiber.h"
#include "tests/support/skip.h"

using namespace weft;

namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

// What a child ends with when something is not as it should be.
enum Wrong : int {
  kNone,
  kNothingRefused,
  kOtherError,
  kNoRemedy,
  kBystanders,
  kNotAgain,
  kNoLimit,
  kTooEarly
};

// Spawns parked fibers until one gets no stack; the others run on, and all is as before once they have ended.
// Call from: a fiber.
int reach_limit(const char* remedy, std::size_t stack_bytes, int at_least) {
  std::atomic<std::uint64_t> turns{0};
  std::atomic<bool> over{false};
  Scope bystanders;
  bystanders.spawn([&] {
    while (!over) {
      ++turns;
      this_fiber::yield();
    }
  });
  Wrong wrong = kNothingRefused;
  int alive = 0;
  {
    Scope scope({.on_error = OnError::kKeepGoing});
    std::atomic<int> here{0};
    for (; alive < 1'000'000 && wrong == kNothingRefused; ++alive) {
      auto fiber = scope.spawn(
          [&here] {
            ++here;
            static_cast<void>(test::park_until_interrupted());
          },
          {.stack_size = stack_bytes});
      test::yield_until([&] { return here == alive + 1 || fiber.done(); });
      if (here == alive + 1) continue;
      const absl::Status status = fiber.join();
      const bool exhausted = status.code() == absl::StatusCode::kResourceExhausted;
      const bool helps = std::string(status.message()).find(remedy) != std::string::npos;
      wrong = !exhausted ? kOtherError : !helps ? kNoRemedy : kNone;
    }
    const std::uint64_t before = turns;
    test::yield_until([&] { return turns > before + 10; });
    scope.cancel();
    static_cast<void>(scope.join());
  }
  over = true;
  if (!bystanders.join().ok()) return kBystanders;
  if (wrong != kNone) return wrong;
  if (alive < at_least) return kTooEarly;
  // A stack of another size: there is room for it only where the idle ones were.
  Scope again;
  again.spawn([] { this_fiber::yield(); }, {.stack_size = 32 * kMiB});
  return again.join().ok() ? kNone : kNotAgain;
}

int in_runtime(const char* remedy, std::size_t stack_bytes, int at_least) {
  int wrong = kBystanders;
  const int code =
      test::on_fiber({.workers = 2}, [&] { wrong = reach_limit(remedy, stack_bytes, at_least); });
  return code != 0 ? code : wrong;
}

void limit(__rlimit_resource which, std::size_t bytes) {
  const rlimit both = {bytes, bytes};
  if (setrlimit(which, &both) != 0) _exit(kNoLimit);
}

}  // namespace

TEST_CASE("memory limit: RLIMIT_AS ends single fibers, and is left again", "[stack][G4]") {
  const auto child = test::death_of([] {
    limit(RLIMIT_AS, 512 * kMiB);
    _exit(in_runtime("RLIMIT_AS", 0, 100));
  });
  CHECK(child.errors == "");
  CHECK(child.signal == 0);
  CHECK(child.status == kNone);
}

TEST_CASE("memory limit: RLIMIT_DATA ends single fibers, and is left again", "[stack][G4]") {
  const auto child = test::death_of([] {
    limit(RLIMIT_DATA, 256 * kMiB);
    _exit(in_runtime("RLIMIT_DATA", 0, 100));
  });
  CHECK(child.errors == "");
  CHECK(child.signal == 0);
  CHECK(child.status == kNone);
}

TEST_CASE("memory limit: without mappings left, fibers without a stack end and others run on",
          "[stack][G4]") {
  const std::size_t limit = os::map_count_limit();
  if (limit > 200'000) return test::skip_case("vm.max_map_count is too large to be used up here");
  const auto child = test::death_of([limit] {
    int wrong = kBystanders;
    test::on_fiber({.workers = 2}, [&] {
      // Neighbours with different rights are not merged: a mapping each.
      std::vector<void*> pages;
      pages.reserve(limit);
      for (int rights = PROT_NONE;; rights ^= PROT_READ) {
        void* page = mmap(nullptr, os::kPageBytes, rights, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED) break;
        pages.push_back(page);
      }
      const auto fiber_of_new_size = [] {
        Scope scope;
        auto fiber = scope.spawn([] { this_fiber::yield(); }, {.stack_size = 64 * kMiB});
        const absl::Status status = fiber.join();
        static_cast<void>(scope.join());
        return status;
      };
      const absl::Status status = fiber_of_new_size();
      const bool helps =
          std::string(status.message()).find("vm.max_map_count (now ") != std::string::npos;
      wrong = status.code() != absl::StatusCode::kResourceExhausted ? kNothingRefused
              : helps                                               ? kNone
                                                                    : kNoRemedy;
      for (void* page : pages) munmap(page, os::kPageBytes);
      if (wrong == kNone && !fiber_of_new_size().ok()) wrong = kNotAgain;
    });
    _exit(wrong);
  });
  CHECK(child.errors == "");
  CHECK(child.signal == 0);
  CHECK(child.status == kNone);
}
