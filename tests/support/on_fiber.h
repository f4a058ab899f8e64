// Code that a test runs on fibers, in a runtime of its own.
//
//   int answer = 0;
//   test::on_fiber({.workers = 2}, [&answer] { answer = compute(); });
//   CHECK(answer == 42);                       // afterwards: fibers never assert
#pragma once

#include <weft/runtime.h>
#include <weft/time.h>

#include <utility>

#include <sys/syscall.h>

#include <absl/status/status.h>
#include <absl/time/time.h>

#include "arch/x86_64/syscall.h"

namespace weft::test {

// Runs `body` as the first fiber and returns what run() returns.
template <class F>
int on_fiber(Options options, F&& body) {
  options.handle_signals = false;
  return weft::run(std::forward<F>(body), std::move(options));
}

// Yields until `condition()` holds. It is no cancellation point: a test that hangs here is ended by its
// time limit.
template <class F>
void yield_until(F&& condition) {
  while (!condition()) this_fiber::yield();
}

// Parks until the fiber is interrupted, and returns by what.
inline absl::StatusCode park_until_interrupted() {
  return sleep_for(absl::InfiniteDuration()).code();
}

inline long kernel_thread() { return arch::syscall(SYS_gettid); }

}  // namespace weft::test
