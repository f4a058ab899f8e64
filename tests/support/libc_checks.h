// Calls into libc and libstdc++ that break on a thread without a whole libc identity.
//
//   for (const test::LibcCheck& check : test::libc_checks()) {
//     if (const char* wrong = check.run()) results.push_back(std::string(check.name) + ": " + wrong);
//   }
//
// Requires: the test depends on libc_checks_dep, and `depends: throwing_library` (which is opened).
// Promises: nothing here asserts, so a fiber may run it; nullptr means that all is well. No network.
#pragma once

#include <mutex>
#include <span>

namespace weft::test {

struct LibcCheck {
  const char* name;
  const char* (*run)();  // what is wrong, or nullptr
};

// All of them, in an order that does not matter. Run each on as many threads at once as you like, but for
// the one about sigaction, which changes the process for a moment.
std::span<const LibcCheck> libc_checks();

// One of them: a thread inside this one, whose thread_local is destroyed.
const char* check_thread_inside();

// Counts the destructors of a thread_local. The counter outlives the threads.
struct CountsItsEnd {
  explicit CountsItsEnd(int* counter) : ends(counter) {}
  CountsItsEnd(const CountsItsEnd&) = delete;
  CountsItsEnd& operator=(const CountsItsEnd&) = delete;
  ~CountsItsEnd() { ++*ends; }
  int* ends;
};

// Two threads (or fibers on two workers) run this on one object. A thread id that both share would let
// both in at once.
struct RecursiveCount {
  static constexpr int kTurns = 1'000'000;

  void run() {
    for (int i = 0; i < kTurns; ++i) {
      std::lock_guard outer(mutex);
      std::lock_guard inner(mutex);
      ++count;
    }
  }

  std::recursive_mutex mutex;
  long count = 0;
};

}  // namespace weft::test
