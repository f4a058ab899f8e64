// What does it cost to park until another fiber wakes one? ns per park and wake, two fibers that hand a
// baton to and fro on one worker, through the wait that every primitive is made of (runtime/sched/park.h).
#include <weft/runtime.h>
#include <weft/scope.h>

#include "bench/bench.h"
#include "runtime/sched/park.h"
#include "runtime/sched/wake_batch.h"

namespace {

using namespace weft::sched;

// Held or not; who finds it taken parks until it is handed over.
class Baton {
 public:
  void give() {
    WakeBatch batch;
    std::uint64_t state = word_.lock();
    WaitList waiting(ObjectWord::waiters(state));
    if (WaitNode* node = waiting.claim_first()) {
      batch.add(*node);
    } else {
      state |= ObjectWord::kFlagA;
    }
    word_.unlock(ObjectWord::with_waiters(state, waiting.first()));
    batch.deliver();
  }

  void take() {
    const std::uint64_t state = word_.lock();
    if ((state & ObjectWord::kFlagA) != 0) return word_.unlock(state & ~ObjectWord::kFlagA);
    WaitNode node;
    wait(word_, state, node, 0);
  }

 private:
  ObjectWord word_;  // kFlagA: given, and nobody has taken it
};

double park_ns(long rounds) {
  auto runtime = weft::Runtime::start({.workers = 1, .handle_signals = false});
  weft::bench::require(runtime.ok(), "starting a runtime");
  Baton to, fro;
  long here = 0, there = 0;
  std::int64_t began = 0, ended = 0;
  const absl::Status status = (*runtime)->block_on([&] {
    weft::Scope scope;
    scope.spawn([&] {
      for (; there < rounds; ++there) to.take(), fro.give();
    });
    began = weft::bench::cpu_ns();
    for (; here < rounds; ++here) to.give(), fro.take();
    ended = weft::bench::cpu_ns();
    return scope.join();
  });
  weft::bench::require(status.ok() && here == rounds && there == rounds,
                       "how often the baton came");
  return static_cast<double>(ended - began) / static_cast<double>(2 * rounds);
}

}  // namespace

int main(int argc, char** argv) {
  const weft::bench::Run run(argc, argv);
  weft::bench::pin_to_one_cpu();
  const long rounds = run.count(1'000'000, 500);
  weft::bench::report("park_wake", {{"ns", run.median([rounds] { return park_ns(rounds); })}});
}
