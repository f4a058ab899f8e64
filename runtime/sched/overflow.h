// What a program says when a fiber runs off its stack, before it dies of it.
//
//   install_overflow_report(describe_fiber);      // once per runtime; the last uninstall undoes it
//   AlternateStack alternate;                     // one per worker, on that worker
//   if (auto s = alternate.enter(); !s.ok()) ...
//   ...
//   alternate.leave();
//   uninstall_overflow_report();
//
//   weft: stack overflow in fiber 7 "parser" spawned at main.cc:12: stack of 256 KiB at
//   [0x7f5a10010000, 0x7f5a10040000), touched 0x7f5a1000fff8
//   ... and the innermost and outermost frames of that stack
//
// Promises: faults that are not an overflow are left alone. After its report, as without one, a fault
// goes on to the handler that was there before, or ends the process by that signal, so that a core
// file shows the fault itself.
#pragma once

#include <cstddef>

#include <signal.h>

#include <absl/status/status.h>

#include "runtime/os/memory.h"

namespace weft::sched {

// Writes who the owner of a stack is ('fiber 7 "parser" spawned at main.cc:12') into `text` of `size`
// bytes; returns the length. Runs in a signal handler: no heap, no locks.
using DescribeOwner = std::size_t (*)(void* owner, char* text, std::size_t size);

// Call from: any thread, one at a time. Never parks.
void install_overflow_report(DescribeOwner describe);
void uninstall_overflow_report();

// A stack for the signal handlers of one kernel thread: the one that ran over cannot carry a handler.
class AlternateStack {
 public:
  AlternateStack() = default;
  AlternateStack(const AlternateStack&) = delete;
  AlternateStack& operator=(const AlternateStack&) = delete;
  ~AlternateStack() { leave(); }

  // Makes one for the calling thread; kResourceExhausted when there is no memory for it.
  absl::Status enter();
  // Puts back what the thread had before. Call from: the thread that entered.
  void leave();

 private:
  os::Region region_;
  stack_t former_ = {};
};

}  // namespace weft::sched
