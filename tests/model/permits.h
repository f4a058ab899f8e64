// Permits: a semaphore, the plainest thing that fibers wait for in a model.
//
//   if (!permits.acquire(kCancel)) check(self.claim.asked(kCancel), "interrupted without a reason");
//   permits.release();                        // handed to the first waiter, or kept
#pragma once

#include <cstdint>

#include "runtime/sched/object_word.h"
#include "runtime/sched/park.h"
#include "runtime/sched/wait_list.h"
#include "runtime/sched/wake_batch.h"

namespace weft::model {

class Permits {
 public:
  // Whether a permit was got; if not, one of `accepts` was asked.
  bool acquire(unsigned accepts) {
    const std::uint64_t state = word_.lock();
    if (count_ > 0) {
      --count_;
      word_.unlock(state);
      return true;
    }
    sched::WaitNode node;
    return sched::wait(word_, state, node, accepts);
  }

  void release() {
    sched::WakeBatch batch;
    const std::uint64_t state = word_.lock();
    sched::WaitList waiting(sched::ObjectWord::waiters(state));
    if (sched::WaitNode* first = waiting.claim_first()) {
      batch.add(*first);
    } else {
      ++count_;
    }
    word_.unlock(sched::ObjectWord::with_waiters(state, waiting.first()));
    batch.deliver();
  }

  int count() const { return count_; }

 private:
  sched::ObjectWord word_;
  int count_ = 0;
};

}  // namespace weft::model
