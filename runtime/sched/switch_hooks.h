// What ASan and TSan must be told about switching stacks; nothing at all without them.
//
//   fiber side                                   worker side
//     leaving_fiber(...)                           entered_worker(...)
//     weft_leave                                   ... commit step, what runs next ...
//     entered_fiber(...)                           leaving_worker(...)
//
// ASan keeps the bounds of the current stack, and a fake stack per fiber; leaving says where to, entering
// says that it happened. TSan keeps a clock per fiber, and one for the worker's own stack.
//
// Two fibers that take turns on a worker are not ordered by that: nobody promised them which turn comes
// first, and what they share they must guard. So their races must be found, and switching says nothing
// to TSan (no_sync). What does order a fiber is said by happens_before() and happens_after() on its block:
//
//   leaving        the fiber -> the worker, which goes on with what the fiber has begun
//   starting       the worker that binds its stack -> the fiber
//   waking         the waker -> the fiber; a worker that puts a fiber back itself is one, too
//   stealing       the spawner, the waker, or the worker that put it back -> the thief. A queue's release store
//                  says so for a kernel thread; to TSan it is one by each fiber, and only the last one's counts
//   block caches   who frees a block -> who gets it next
//
// A worker is never said to release to the fiber that it resumes: it has seen all that its other fibers
// did, and a fiber that merely yielded would then have seen it as well. So a thief hears of who put back such
// a fiber on the block's `frame`, which no fiber acquires.
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
void AnnotateBenignRaceSized(const char* file, int line, const volatile void* address,
                             std::size_t bytes, const char* why);
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

// What the caller did comes before what happens_after() of the same block is followed by. Atomics that say
// so themselves need none of this: it is for what one kernel thread does in turn.
[[gnu::always_inline]] inline void happens_before([[maybe_unused]] void* block) {
#if WEFT_TSAN
  __tsan_release(block);
#endif
}
[[gnu::always_inline]] inline void happens_after([[maybe_unused]] void* block) {
#if WEFT_TSAN
  __tsan_acquire(block);
#endif
}

// What a worker keeps for the sanitizers.
struct WorkerHooks {
  // Call from: the worker, before its loop.
  void start([[maybe_unused]] int* errno_address) {
#if WEFT_TSAN
    tsan_context = __tsan_get_current_fiber();
    AnnotateBenignRaceSized(__FILE__, __LINE__, errno_address, sizeof *errno_address,
                            "each fiber's errno is kept around its switches");
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
  // NOLINTBEGIN(modernize-use-equals-default): an object of a trivial type would be an unused variable
  WorkerSection() {}
  ~WorkerSection() {}
  // NOLINTEND(modernize-use-equals-default)
#endif
  WorkerSection(const WorkerSection&) = delete;
  WorkerSection& operator=(const WorkerSection&) = delete;
};

}  // namespace weft::sched
