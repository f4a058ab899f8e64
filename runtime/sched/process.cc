#include "runtime/sched/process.h"

#include <cstdlib>
#include <mutex>

#include <pthread.h>
#include <unistd.h>

#include "runtime/base/atomic.h"
#include "runtime/base/plant.h"
#include "runtime/os/clock.h"
#include "runtime/sched/core.h"
#include "runtime/sched/fiber_life.h"
#include "runtime/sched/worker.h"

namespace weft::sched {

base::Atomic<bool> forked_child{false};

namespace {

base::Atomic<bool> exiting{false};

// The child has one thread, the one that called fork, and no worker whatever that thread was.
void after_fork_in_child() {
  if constexpr (!base::planted(66)) set_current_worker(nullptr);
  forked_child.store(true, std::memory_order_relaxed);  // relaxed: there is no other thread
}

void hold_at_exit(int status, void*) {
  if (is_forked_child()) return;
  bool all_held = true;
  Core::for_each([&all_held](Core& core) {
    const std::int64_t limit = absl::ToInt64Nanoseconds(core.options().shutdown_limit);
    all_held = core.hold_workers(os::now_ns() + limit) && all_held;
  });
  // A fiber that computes on would run into destroyed statics.
  if (!all_held) _exit(status);
  // release: the workers are held; see is_exiting()
  exiting.store(true, std::memory_order_release);
}

}  // namespace

void prepare_process() {
  static std::once_flag once;
  std::call_once(once, [] {
    pthread_atfork(nullptr, nullptr, &after_fork_in_child);
    on_exit(&hold_at_exit, nullptr);
  });
}

bool is_exiting() {
  return exiting.load(std::memory_order_acquire);  // acquire: see hold_at_exit()
}

}  // namespace weft::sched
