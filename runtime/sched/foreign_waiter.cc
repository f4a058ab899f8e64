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
  alignas(Pool) static char memory[sizeof(Pool)];
  static Pool* const instance = new (memory) Pool;
  return *instance;
}

struct Lease {
  ForeignWaiter* record;
  // Where there is no memory for a record: a waker that is late may then wake an address whose thread has
  // ended, and the kernel says that nobody is there.
  ForeignWaiter own;

  Lease() {
    Pool& all = pool();
    std::lock_guard hold(all.lock);
    record = all.free;
    if (record != nullptr) {
      all.free = record->next;
    } else {
      record = new (std::nothrow) ForeignWaiter;
    }
    if (record == nullptr) record = &own;
  }
  ~Lease() {
    if (record == &own) return;
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
