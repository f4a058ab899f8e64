// A baton: one fiber waits for it, another passes it on. The smallest use of park and wake.
//
//   test::Baton ready;
//   ready.pass();      // any thread
//   ready.take();      // parks until it was passed; then it is gone again
//   if (!ready.take_unless_cancelled()) ...   // the caller was asked to end before it was passed
#pragma once

#include "runtime/sched/object_word.h"
#include "runtime/sched/park.h"
#include "runtime/sched/wait_list.h"
#include "runtime/sched/wake_batch.h"

namespace weft::test {

class Baton {
 public:
  void pass() {
    const std::uint64_t state = word_.lock();
    sched::WaitList waiting(sched::ObjectWord::waiters(state));
    sched::WaitNode* node = waiting.claim_first();
    sched::WakeBatch batch;
    if (node != nullptr) batch.add(*node);
    const std::uint64_t there = node != nullptr ? 0 : sched::ObjectWord::kFlagA;
    word_.unlock(sched::ObjectWord::with_waiters(state | there, waiting.first()));
    batch.deliver();
  }

  void take() { take(0); }
  bool take_unless_cancelled() { return take(sched::kCancel); }

 private:
  bool take(unsigned accepts) {
    const std::uint64_t state = word_.lock();
    if ((state & sched::ObjectWord::kFlagA) != 0) {
      word_.unlock(state & ~sched::ObjectWord::kFlagA);
      return true;
    }
    sched::WaitNode node;
    return sched::wait(word_, state, node, accepts);
  }

  sched::ObjectWord word_;
};

}  // namespace weft::test
