// What ASan and TSan must be told about switching stacks; nothing at all without them.
//
//   fiber side                                   worker side
//     leaving_fiber(...)                           entered_worker(...)
//     weft_leave                                   ... commit step, what runs next ...
//     entered_fiber(...)                           leaving_worker(...)
//
// ASan keeps the bounds of the current stack, and a fake stack per fiber; leaving says where to, entering
// says that it happened. TSan keeps a clock per fiber. Switching with no_sync makes no fiber wait for
// another of the same worker, so that their races are found; what does order a fiber with its worker,
// the switch itself, is said by release and acquire on the fiber's block: never on the worker, or all
// its fibers would be ordered with each other.
//
// Requires: between leaving and entering nothing instrumented runs.
#pragma once

#include <cstddef>

#include "arch/x86_64/uninstrumented.h"
#include "runtime/base/sanitizer.h"

#if WEFT_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#if WEFT_TSAN
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif

namespace weft::sched {

// The bounds of a stack, as ASan wants them.
struct StackBounds {
  const void* low = nullptr;
  std::size_t bytes = 0;
};

// Functions around the switch: in a sanitized build nothing may be inserted into them.
#if WEFT_ASAN || WEFT_TSAN
#define WEFT_AROUND_SWITCH WEFT_UNINSTRUMENTED
#else
#define WEFT_AROUND_SWITCH
#endif

// What a worker keeps for the sanitizers.
struct WorkerHooks {
  // Call from: the worker, before its loop.
  void start() {
#if WEFT_TSAN
    tsan_context = __tsan_get_current_fiber();
#endif
  }

  StackBounds own;               // learnt at the first switch back
  void* fake_stack = nullptr;    // ASan's, while a fiber runs
  void* tsan_context = nullptr;  // TSan's, of the worker's own stack
};

// Code that works on what belongs to the worker, called by a fiber: TSan sees each fiber as a thread, and
// what two fibers of one worker do to it as a race. Atomics inside still count.
class WorkerSection {
 public:
#if WEFT_TSAN
  WorkerSection() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~WorkerSection() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
#else
  WorkerSection() {}
  ~WorkerSection() {}
#endif
  WorkerSection(const WorkerSection&) = delete;
  WorkerSection& operator=(const WorkerSection&) = delete;
};

}  // namespace weft::sched
