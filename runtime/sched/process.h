// What the runtimes of a process have in common: the end of the process, and its forks.
//
//   prepare_process();                   // before the first runtime starts
//
// exit() and return from main run static destructors under running workers. A hook, registered at the
// first start and so called before the destructors of everything older, holds the workers where they
// next leave a fiber; one that does not get there within the shutdown limit makes it _exit(status),
// without destructors. Statics made after the runtime's start die before the hook.
//
// A forked child may only exec or _exit: its copy of the runtime has no kernel threads.
#pragma once

#include "runtime/base/atomic.h"

namespace weft::sched {

// Call from: any thread, any number of times.
void prepare_process();

extern base::Atomic<bool> forked_child;
// relaxed: set by the child's only thread.
inline bool is_forked_child() { return forked_child.load(std::memory_order_relaxed); }

// True once exit() holds the workers: no fiber runs any more, so nothing may wait for one. A runtime or a
// group that is a static object is left as it is. Call from: any thread.
bool is_exiting();

}  // namespace weft::sched
