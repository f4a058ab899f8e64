// The worker: as worker.cc, but its queues are counters.
#include "tests/model/idle_workers.h"

#include "tests/model/blocking.h"

namespace weft::model {
namespace {

// Takes `wanted(n)` of the n that are there, and returns how many.
template <class Wanted>
int take(Count& count, Wanted wanted) {
  int seen = count.load(kRelaxed);
  while (seen > 0 && !count.compare_exchange_strong(seen, seen - wanted(seen), kSeqCst)) {
  }
  return seen > 0 ? wanted(seen) : 0;
}
int take_one(Count& count) {
  return take(count, [](int) { return 1; });
}
int take_half(Count& count) {
  return take(count, [](int n) { return (n + 1) / 2; });
}
int take_all(Count& count) {
  return take(count, [](int n) { return n; });
}

}  // namespace

void ModelWorker::start(Runtime& runtime, int index) {
  runtime_ = &runtime;
  index_ = index;
}

void ModelWorker::main() {
  sched::Idle& idle = runtime_->idle();
  idle.enter();
  int ran = 0;
  while (true) {
    if (ran < kFibersPerTurn) {
      if (take_local()) {
        ++ran;
        run();
        continue;
      }
      if (!idle.find_work(*this, index_)) break;
    } else {
      if (stopping()) break;
      collect();
      if (share_left()) idle.rung(*this, (index_ + 1) % runtime_->worker_count());
    }
    ran = 0;
  }
  ++runtime_->stopped;
}

bool ModelWorker::take_local() {
  return next_slot_.exchange(0, kSeqCst) != 0 || take_one(ready_) != 0 || take_one(unstarted_) != 0;
}

// A fiber.
void ModelWorker::run() {
  while (true) {
    char action = runtime_->next_action();
    if (action == '?') action = "swt.!"[choose(5)];
    if (action == 's') spawn();
    if (action == 'w') make_ready();
    if (action == 't') arm();
    if (action == '.') return;
    if (action == '!' && runtime_->stuck++ < runtime_->limits().stuck_max) {
      stuck_ = true;
      block_until([this] { return stopping(); });
      stuck_ = false;
      return;
    }
  }
}

void ModelWorker::make_ready() {
  if (next_slot_.exchange(1, kSeqCst) != 0) ready_.fetch_add(1, kSeqCst);
  if (runtime_->idle().sleepers() == 0) return;
  if (ready_.load(kRelaxed) >= kReadyWorthARing) {
    runtime_->idle().rung(*this, (index_ + 1) % runtime_->worker_count());
  } else {
    runtime_->idle().watched(*this);
  }
}

void ModelWorker::spawn() {
  const bool first = unstarted_.fetch_add(1, kSeqCst) == 0;
  if (runtime_->idle().sleepers() == 0) return;
  if (first) {
    runtime_->idle().watched(*this);
  } else {
    runtime_->idle().rung(*this, (index_ + 1) % runtime_->worker_count());
  }
}

void ModelWorker::arm() { timers_.fetch_add(1, kSeqCst); }

bool ModelWorker::stopping() const { return runtime_->stopping.load(kSeqCst); }

bool ModelWorker::collect() {
  take_in();
  return !queues_empty();
}

void ModelWorker::take_in() {
  take_all(notes);
  const int woken = take_all(inbox) + take_all(due_);
  if (woken != 0) ready_.fetch_add(woken, kSeqCst);
  if (int share = take_all(runtime_->injection); share != 0) unstarted_.fetch_add(share, kSeqCst);
}

bool ModelWorker::share_left() const {
  return ready_.load(kRelaxed) >= kReadyWorthARing || unstarted_.load(kRelaxed) > 1 ||
         runtime_->injection.load(kRelaxed) != 0;
}

bool ModelWorker::steal(int victim) {
  ModelWorker& other = runtime_->worker(victim);
  int count = take_half(other.ready_);
  if (count != 0) {
    ready_.fetch_add(count, kSeqCst);
    return true;
  }
  count = take_half(other.unstarted_);
  if (count != 0) unstarted_.fetch_add(count, kSeqCst);
  return count != 0;
}

bool ModelWorker::anything() const {
  if (inbox.load(kSeqCst) != 0 || notes.load(kSeqCst) != 0 || !queues_empty() ||
      runtime_->injection.load(kSeqCst) != 0)
    return true;
  for (int i = 0; i < runtime_->worker_count(); ++i) {
    const ModelWorker& other = runtime_->worker(i);
    if (other.ready_.load(kSeqCst) != 0 || other.unstarted_.load(kSeqCst) != 0) return true;
  }
  return due_.load(kRelaxed) != 0;
}

// A watcher's sleep ends when its next look would change something; looks that find nothing are left
// out, so that rest can be seen.
void ModelWorker::sleep(bool timed) {
  asleep_ = true;
  timed_ = timed;
  block_until([this, timed] {
    if (doorbell_.load(kRelaxed) != 0 || due_.load(kRelaxed) != 0) return true;
    if (!timed) return false;
    bool stranded = runtime_->idle().busy() == 0 || runtime_->injection.load(kRelaxed) != 0;
    for (int i = 0; i < runtime_->worker_count(); ++i) {
      stranded = stranded || (i != index_ && runtime_->worker(i).stranded());
    }
    return stranded;
  });
  asleep_ = false;
  doorbell_.store(0, kRelaxed);
  take_in();
}

bool ModelWorker::rescue() {
  for (int i = 0; i < runtime_->worker_count(); ++i) {
    if (i == index_) continue;
    ModelWorker& other = runtime_->worker(i);
    steal(i);
    const int woken = take_all(other.due_) + other.next_slot_.exchange(0, kSeqCst);
    if (woken != 0) ready_.fetch_add(woken, kSeqCst);
  }
  take_in();
  return !queues_empty();
}

void ModelWorker::ring(int worker) { runtime_->worker(worker).doorbell_.store(1, kSeqCst); }

}  // namespace weft::model
