// The stacks that fibers run on, as a user meets them: what fits on the default size, what the last fiber
// leaves for the next one, and what a stack occupies.

#include <weft/fiber.h>
#include <weft/runtime.h>
#include <weft/scope.h>
#include <weft/time.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>

#include <execinfo.h>
#include <netdb.h>

#include <catch2/catch.hpp>

#include "arch/x86_64/uninstrumented.h"
#include "runtime/os/memory.h"
#include "runtime/sched/core.h"
#include "tests/maps.h"
#include "tests/support/idle_minutes.h"
#include "tests/support/on_fiber.h"
#include "tests/support/skip.h"

using namespace weft;

namespace {

// The part of the calling fiber's stack that is free: it ends well below the caller's own frame.
struct FreeStack {
  unsigned char* low;
  unsigned char* end;
  std::size_t bytes() const { return static_cast<std::size_t>(end - low); }
};

constexpr std::size_t kCallersFrames = 512;

[[gnu::noinline]] FreeStack free_stack() {
  const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  const std::uintptr_t low = (here - this_fiber::stack_remaining()) / os::kPageBytes;
  return {reinterpret_cast<unsigned char*>(low * os::kPageBytes),
          reinterpret_cast<unsigned char*>(here - kCallersFrames)};
}

// ---- How deep a call goes

constexpr unsigned char kPaint = 0xa5;

WEFT_UNINSTRUMENTED void paint(const FreeStack& stack) {
  for (volatile unsigned char* at = stack.low; at != stack.end; ++at) *at = kPaint;
}

WEFT_UNINSTRUMENTED std::size_t untouched(const FreeStack& stack) {
  const volatile unsigned char* at = stack.low;
  while (at != stack.end && *at == kPaint) ++at;
  return static_cast<std::size_t>(at - stack.low);
}

// ---- Secrets

using Secret = std::array<unsigned char, 32>;
constexpr std::size_t kDepths = 64;
constexpr std::size_t kDepthBytes = 128;

Secret secret() {
  Secret bytes;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<unsigned char>(i * 37 + 11);
  }
  return bytes;
}

WEFT_UNINSTRUMENTED void leave_behind(const FreeStack& stack, const Secret& bytes) {
  for (std::size_t depth = 1; depth <= kDepths; ++depth) {
    volatile unsigned char* to = stack.end - depth * kDepthBytes;
    for (std::size_t i = 0; i < bytes.size(); ++i) to[i] = bytes[i];
  }
}

WEFT_UNINSTRUMENTED bool finds(const FreeStack& stack, const Secret& bytes) {
  for (const volatile unsigned char* at = stack.low; at + bytes.size() <= stack.end; ++at) {
    std::size_t same = 0;
    while (same < bytes.size() && at[same] == bytes[same]) ++same;
    if (same == bytes.size()) return true;
  }
  return false;
}

// Runs `visit(stack)` on `count` fibers that are all alive at once.
template <class Visit>
void on_stacks(int count, Visit visit) {
  Scope scope;
  std::atomic<int> here{0};
  for (int i = 0; i < count; ++i) {
    scope.spawn([&here, &visit, count] {
      ++here;
      test::yield_until([&] { return here == count; });
      visit(free_stack());
    });
  }
  static_cast<void>(scope.join());
}

}  // namespace

TEST_CASE("fiber stack: what programs call fits on the default size, twice over", "[stack][G9]") {
  struct Operation {
    const char* name;
    void (*call)();
  };
  static constexpr Operation kOperations[] = {
      {"nothing", [] {}},
      {"snprintf %d",
       [] {
         char text[32];
         std::snprintf(text, sizeof text, "%d", 7);
       }},
      {"snprintf %f",
       [] {
         char text[400];
         std::snprintf(text, sizeof text, "%f %Lg", 1e300, 1e300L);
       }},
      {"fprintf %f",
       [] {
         std::FILE* nowhere = std::fopen("/dev/null", "we");
         std::setvbuf(nowhere, nullptr, _IONBF, 0);  // libc's own buffer, on the stack
         std::fprintf(nowhere, "%f", 1e300);
         std::fclose(nowhere);
       }},
      {"throw and catch",
       [] {
         try {
           throw std::runtime_error("thrown");
         } catch (const std::exception&) {
         }
       }},
      {"ostringstream",
       [] {
         std::ostringstream out;
         out << 1.5;
       }},
      {"backtrace",
       [] {
         void* frames[16];
         backtrace(frames, 16);
       }},
      {"getaddrinfo",
       [] {
         addrinfo* found = nullptr;
         if (getaddrinfo("localhost", "http", nullptr, &found) == 0) freeaddrinfo(found);
       }},
  };
  constexpr std::size_t kCount = std::size(kOperations);
  std::array<std::size_t, kCount> used{};
  std::size_t usable = 0;
  CHECK(test::on_fiber({.workers = 1}, [&] {
          for (std::size_t i = 0; i < kCount; ++i) {
            Scope scope;
            scope.spawn([&, i] {
              kOperations[i].call();  // the first call binds symbols and loads libraries
              const FreeStack stack = free_stack();
              paint(stack);
              kOperations[i].call();
              used[i] = stack.bytes() - untouched(stack);
              usable = stack.bytes();
            });
            static_cast<void>(scope.join());
          }
        }) == 0);
  for (std::size_t i = 0; i < kCount; ++i) {
    std::printf("%-16s %6zu of %zu bytes\n", kOperations[i].name, used[i] + kCallersFrames, usable);
    CHECK(2 * used[i] < usable);
  }
}

// The documented default (fiber.h): stacks are not cleared from fiber to fiber. Pages that went back to the
// kernel in between come back empty.
TEST_CASE("fiber stack: a warm stack keeps what the last fiber wrote, a trimmed one does not",
          "[stack][G5]") {
  constexpr int kFibers = 100;
  constexpr std::size_t kKept = 8;  // more than a sleeping worker and its reserve hold back
  auto runtime = Runtime::start({.workers = 1, .handle_signals = false});
  REQUIRE(runtime.ok());
  const Secret bytes = secret();
  std::atomic<int> found{0};
  const auto look = [&] {
    found = 0;
    on_stacks(kFibers, [&](const FreeStack& stack) { found += finds(stack, bytes) ? 1 : 0; });
    return found.load();
  };
  int before = -1;
  int warm = -1;
  CHECK((*runtime)
            ->block_on([&] {
              before = look();
              on_stacks(kFibers, [&](const FreeStack& stack) { leave_behind(stack, bytes); });
              warm = look();
            })
            .ok());
  CHECK(before == 0);
  CHECK(warm == kFibers);

  // The worker falls asleep and gives its stacks to the pool, where minutes pass: here they are told.
  sched::StackPool& pool = sched::core_of(**runtime)->stacks();
  while (pool.usage().out > kKept) sched_yield();
  test::let_idle_minutes_pass(pool, 20);
  CHECK(pool.usage().warm == 0);
  int trimmed = -1;
  CHECK((*runtime)->block_on([&] { trimmed = look(); }).ok());
  CHECK(trimmed <= static_cast<int>(kKept));
}

TEST_CASE("fiber stack: no huge page may come under a stack", "[stack][G10]") {
  std::string details;
  test::on_fiber({.workers = 1},
                 [&details] { details = test::mapping_details(__builtin_frame_address(0)); });
  const std::size_t at = details.find("VmFlags:");
  if (at == details.npos) return test::skip_case("/proc/self/smaps shows no flags");
  INFO(details);
  CHECK(details.find(" nh", at) != details.npos);  // MADV_NOHUGEPAGE, whatever the host's setting
}

TEST_CASE("fiber stack: ten thousand stacks occupy two pages each at most, also with huge pages",
          "[stack][G10]") {
  std::string setting;
  std::getline(std::ifstream("/sys/kernel/mm/transparent_hugepage/enabled"), setting);
  if (setting.find("[always]") == setting.npos) {
    return test::skip_case("needs transparent_hugepage/enabled to be `always`");
  }
  constexpr int kFibers = 10'000;
  std::size_t resident_kib = 0;
  test::on_fiber({.workers = 1}, [&resident_kib] {
    on_stacks(1, [](const FreeStack&) {});
    const std::size_t before = test::status_kib("VmRSS:");
    Scope scope;
    std::atomic<int> here{0};
    for (int i = 0; i < kFibers; ++i) {
      scope.spawn([&here] {
        ++here;
        static_cast<void>(test::park_until_interrupted());
      });
    }
    test::yield_until([&] { return here == kFibers; });
    resident_kib = test::status_kib("VmRSS:") - before;
    scope.cancel();
  });
  CHECK(resident_kib <= kFibers * 2 * os::kPageBytes / 1024);
}

TEST_CASE("fiber stack: nothing of a process with fibers is writable and executable",
          "[stack][N3]") {
  std::string both;
  test::on_fiber({.workers = 2}, [&both] {
    Scope scope;
    for (int i = 0; i < 100; ++i)
      scope.spawn([] { static_cast<void>(test::park_until_interrupted()); });
    this_fiber::yield();
    test::for_each_mapping([&both](auto, auto, const std::string& line) {
      const std::string rights = line.substr(line.find(' ') + 1, 4);
      if (rights[1] == 'w' && rights[2] == 'x') both += line;
    });
    scope.cancel();
    return scope.join();
  });
  CHECK(both == "");
}
