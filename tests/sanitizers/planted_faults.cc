// Faults on purpose, each in a fiber, for planted_faults_test.py: a lane that reports none of them would
// be green for nothing. And what must not be reported.
//
//   planted_faults NAME
#include <weft/runtime.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

#include "runtime/base/sanitizer.h"
#include "tests/support/random.h"

#if WEFT_ASAN
#include <sanitizer/lsan_interface.h>
#endif

namespace {

// Hides where a pointer comes from, so that no compiler sees the fault coming. Not inlined: clang looks for no
// use after return in functions that contain assembly.
template <class T>
[[gnu::noinline]] T* hidden(T* pointer) {
  asm volatile("" : "+r"(pointer));
  return pointer;
}

// ---- For AddressSanitizer

[[gnu::noinline]] void heap_overflow() {
  auto bytes = std::make_unique<char[]>(16);
  weft::this_fiber::yield();
  hidden(bytes.get())[16] = 'x';
}

[[gnu::noinline]] void array_overflow() {
  std::array<char, 16> bytes{};
  weft::this_fiber::yield();
  hidden(bytes.data())[16] = 'x';
}

[[gnu::noinline]] char* address_of_a_local() {
  char bytes[16];
  return hidden(&bytes[0]);
}

[[gnu::noinline]] void use_after_return() {
  char* gone = address_of_a_local();
  weft::this_fiber::yield();
  *gone = 'x';
}

[[gnu::noinline]] void use_after_scope() {
  char* gone;
  {
    char bytes[16];
    gone = hidden(&bytes[0]);
  }
  weft::this_fiber::yield();
  *gone = 'x';
}

[[gnu::noinline]] void leak() {
  char* lost = hidden(new char[1234]);
  weft::this_fiber::yield();
  lost[0] = 'x';
  lost = hidden<char>(nullptr);
}

// ---- For ThreadSanitizer

long shared_number = 0;
std::atomic<int> arrived{0};

// Two fibers that run at the same time, which therefore are on two workers. relaxed: orders nothing.
// Many times, because TSan misses a race of two accesses that happen in the very same moment.
[[gnu::noinline]] void race_of_workers() {
  arrived.fetch_add(1, std::memory_order_relaxed);
  while (arrived.load(std::memory_order_relaxed) < 2) asm volatile("pause");
  for (int i = 0; i < 1'000; ++i) {
    ++shared_number;
    asm volatile("" : : : "memory");
  }
}

// Two fibers that take turns on one worker: nobody promised them an order.
[[gnu::noinline]] void race_of_fibers() {
  weft::this_fiber::yield();
  ++shared_number;
  weft::this_fiber::yield();
}

// ---- No faults

#if WEFT_ASAN
// A hundred suspended fibers, each the only one that knows a heap object: no leak, while they live.
[[gnu::noinline]] void suspended_owners() {
  bool stay = true;
  weft::Scope scope;
  std::vector<weft::Fiber<void>> owners;
  for (int i = 0; i < 100; ++i) {
    owners.push_back(scope.spawn([&stay] {
      auto kept = std::make_unique<std::array<char, 4321>>();
      while (stay) weft::this_fiber::yield();
      (*hidden(kept.get()))[0] = 'x';
    }));
  }
  weft::this_fiber::yield();
  if (__lsan_do_recoverable_leak_check() != 0) std::puts("a false leak");
  stay = false;
  static_cast<void>(scope.join());
}
#else
void suspended_owners() {}
#endif

// Frames are abandoned by exceptions, stacks are used again: nothing of an old frame's state may matter.
[[gnu::noinline]] void throw_with_arrays(int levels) {
  char bytes[100];
  hidden(&bytes[0])[99] = 'x';
  if (levels == 0) throw levels;
  throw_with_arrays(levels - 1);
  hidden(&bytes[0])[99] = 'y';
}

void stacks_used_again() {
  for (int round = 0; round < 200; ++round) {
    weft::Scope scope({.on_error = weft::OnError::kKeepGoing});
    for (int i = 0; i < 4; ++i) {
      scope.spawn([round, i] {
        weft::this_fiber::yield();
        try {
          throw_with_arrays(round % 10 + i);
        } catch (int) {
          weft::this_fiber::yield();
        }
      });
    }
    static_cast<void>(scope.join());
  }
}

struct Planted {
  std::string_view name;
  int workers;
  int fibers;
  void (*body)();
};

constexpr Planted kPlanted[] = {
    {"heap_overflow", 1, 1, &heap_overflow},
    {"array_overflow", 1, 1, &array_overflow},
    {"use_after_return", 1, 2, &use_after_return},
    {"use_after_scope", 1, 2, &use_after_scope},
    {"leak", 1, 1, &leak},
    {"race_of_workers", 2, 2, &race_of_workers},
    {"race_of_fibers", 1, 2, &race_of_fibers},
    {"suspended_owners", 1, 1, &suspended_owners},
    {"stacks_used_again", 2, 1, &stacks_used_again},
};

}  // namespace

int main(int argc, char** argv) {
  for (const Planted& planted : kPlanted) {
    if (argc != 2 || planted.name != argv[1]) continue;
    return weft::run(
        [&planted] {
          weft::Scope scope;
          for (int i = 0; i < planted.fibers; ++i) scope.spawn(planted.body);
          return scope.join();
        },
        {.workers = planted.workers, .handle_signals = false});
  }
  std::fprintf(stderr, "usage: planted_faults NAME\n");
  return 2;
}
