// Fibers that keep changing their kernel thread, and a place to note what they find.
//
//   Migrations migrations;
//   run_fibers(16, random, [&](Random& own) {
//     migrations.park(own);
//     migrations.expect(fact, "what is wrong");
//   });
//   CHECK(migrations.wrong() == "");
//
// Promises: everything may be called by any number of fibers; nothing asserts.
#pragma once

#include <weft/runtime.h>
#include <weft/scope.h>

#include <atomic>
#include <string>

#include <sys/syscall.h>

#include "arch/x86_64/syscall.h"
#include "tests/support/random.h"

namespace weft::test {

inline Options two_shuffling_workers() {
  return {.workers = 2, .shuffle_wakes = true, .handle_signals = false};
}

// Runs `body` on so many fibers, each with random numbers of its own. Returns what run() returns.
template <class Body>
int run_fibers(int fibers, Random& random, Body body) {
  return run(
      [&] {
        Scope scope;
        for (int i = 0; i < fibers; ++i) {
          scope.spawn([&body, seed = random.next()] {
            Random own(seed);
            body(own);
          });
        }
        return scope.join();
      },
      two_shuffling_workers());
}

class Migrations {
 public:
  // Lets another fiber run: mostly by a yield, else by waiting for a child, whose end wakes us on the
  // other worker; that costs a wake of a kernel thread.
  void park(Random& random) {
    const long before = kernel_thread();
    if (!random.one_in(8)) {
      this_fiber::yield();
    } else {
      Scope scope;
      expect(scope.spawn([] {}).join().ok(), "a child that does nothing failed");
      expect(scope.join().ok(), "a scope without fibers failed");
    }
    // relaxed: counts, read when all fibers have ended.
    parks_.fetch_add(1, std::memory_order_relaxed);
    if (kernel_thread() != before) seen_.fetch_add(1, std::memory_order_relaxed);
  }

  void expect(bool fact, const char* what) {
    // relaxed: a pointer to a constant; read when all fibers have ended.
    if (!fact) wrong_.store(what, std::memory_order_relaxed);
  }

  std::string wrong() const { return wrong_.load(std::memory_order_relaxed); }
  long parks() const { return parks_.load(std::memory_order_relaxed); }
  // How many parks ended on another kernel thread than they began on.
  long seen() const { return seen_.load(std::memory_order_relaxed); }

 private:
  static long kernel_thread() { return arch::syscall(SYS_gettid); }

  std::atomic<const char*> wrong_{""};
  std::atomic<long> parks_{0};
  std::atomic<long> seen_{0};
};

}  // namespace weft::test
