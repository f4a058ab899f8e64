#include "runtime/sched/foreign_waiter.h"

#include <mutex>

#include "runtime/base/spin_lock.h"
#include "runtime/os/futex.h"

namespace weft::sched {
namespace {

struct Pool {
  base::SpinLock lock;
  ForeignWaiter* free = nullptr;
};

// Never destroyed: threads may end, and wakers arrive, after static destruction.
Pool& pool() {
  static Pool* const instance = new Pool;
  return *instance;
}

struct Lease {
  ForeignWaiter* record;
  Lease() {
    Pool& all = pool();
    std::lock_guard hold(all.lock);
    record = all.free;
    if (record != nullptr) {
      all.free = record->next;
    } else {
      record = new ForeignWaiter;
    }
  }
  ~Lease() {
    Pool& all = pool();
    std::lock_guard hold(all.lock);
    record->next = all.free;
    all.free = record;
  }
};

}  // namespace

ForeignWaiter& ForeignWaiter::of_this_thread() {
  static thread_local Lease lease;
  return *lease.record;
}

void ForeignWaiter::wait() {
  while (!notified()) os::futex_wait(word, kWaiting);
}

void ForeignWaiter::notify() {
  set_notified();
  os::futex_wake(word, 1);
}

}  // namespace weft::sched
