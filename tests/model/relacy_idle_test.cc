// Sleeping, ringing and watching under weak memory: Idle, the queues' halves of [sleep], and Timers as they
// ship. Whatever way work comes while a worker falls asleep, that worker looks, or is rung, or somebody
// watches. The interleavings of a strong machine are the business of idle_test.cc.
#include <array>

#include <catch2/catch.hpp>

#include "runtime/base/inbox.h"
#include "runtime/base/injection_queue.h"
#include "runtime/base/ready_queue.h"
#include "runtime/base/spawn_deque.h"
#include "runtime/sched/idle.h"
#include "runtime/sched/timers.h"
#include "tests/model/relacy_explore.h"

namespace weft::relacy {
namespace {

struct Work {
  Work* link = nullptr;
};

// A worker, as far as Idle knows it.
class Host {
 public:
  static constexpr int kCount = 2;

  void start(std::array<Host, kCount>& all, int index) {
    all_ = &all;
    index_ = index;
  }

  // ---- The host of Idle; as worker_idle.cc
  bool stopping() const { return shared().stopping_.load(std::memory_order_seq_cst); }
  bool collect() {
    take_in();
    return !queues_empty();
  }
  bool steal(int victim) {
    std::array<Work*, 2> loot{};
    Host& other = at(victim);
    unsigned count = other.ready.steal(loot.data(), 1);
    if (count == 0) count = other.unstarted.steal(loot.data(), 1);
    if (count != 0) keep(loot[0]);
    return count != 0;
  }
  bool share_left() const { return false; }
  bool quiet_work() const { return !queues_empty(); }
  bool anything() const {
    if (!inbox.empty_seq_cst() || !queues_empty() || !shared().injection.empty_seq_cst()) {
      return true;
    }
    for (const Host& other : *all_) {
      if (!other.ready.empty_seq_cst() || !other.unstarted.empty_seq_cst()) return true;
    }
    return timers.earliest() <= kNowNs;
  }
  bool has_timers() const { return timers.earliest() != base::TimerWheel::kNever; }
  bool spin() { return false; }
  void sleep(bool timed) {
    if (timed && periods_end) return spin_hint();  // at once
    while (doorbell_.load(std::memory_order_acquire) == 0) spin_hint();
    doorbell_.store(0, std::memory_order_relaxed);
  }
  bool rescue() {
    steal(1 - index_);
    take_in();
    return !queues_empty();
  }
  void ring(int worker) { at(worker).doorbell_.store(1, std::memory_order_release); }

  // ---- For the tests
  static constexpr std::int64_t kNowNs = 1;

  // Off: what is found must be found without the watcher's help.
  bool periods_end = true;

  // As worker.cc: work for the ready queue is published, the first unstarted fiber is not.
  void make_ready(sched::Idle& idle, Work* work) {
    RL_ASSERT(ready.push(work));
    ready.publish_seq_cst();
    if (idle.sleepers() != 0) idle.rung(*this, 1 - index_);
  }
  void spawn(sched::Idle& idle, Work* work) {
    RL_ASSERT(unstarted.push(work));
    unstarted.publish_seq_cst();
    if (idle.sleepers() != 0) idle.rung(*this, 1 - index_);
  }
  void spawn_quietly(sched::Idle& idle, Work* work) {
    RL_ASSERT(unstarted.push(work));
    if (idle.sleepers() != 0) idle.watched(*this);
  }
  void stop(sched::Idle& idle) {
    shared().stopping_.store(true, std::memory_order_seq_cst);
    idle.ring_all(*this);
  }
  Work* take() {
    Work* work = ready.pop();
    return work != nullptr ? work : unstarted.pop();
  }

  base::Inbox<Work, &Work::link> inbox;
  base::InjectionQueue<Work, &Work::link> injection;  // of the first host only
  base::ReadyQueue<Work> ready{2};
  base::SpawnDeque<Work> unstarted{2};
  sched::Timers timers{0};

 private:
  Host& at(int index) const { return (*all_)[static_cast<std::size_t>(index)]; }
  Host& shared() const { return at(0); }
  void keep(Work* work) { RL_ASSERT(ready.push(work)); }
  bool queues_empty() const { return ready.empty() && unstarted.empty(); }

  void take_in() {
    auto messages = inbox.take_all();
    while (Work* work = messages.pop()) keep(work);
    base::IntrusiveQueue<Work, &Work::link> share;
    shared().injection.take(share, 2);
    while (Work* work = share.pop()) keep(work);
    sched::WakeBatch batch;
    timers.fire_due(kNowNs, batch);
  }

  std::array<Host, kCount>* all_ = nullptr;
  int index_ = 0;
  base::Atomic<int> doorbell_{0};
  base::Atomic<bool> stopping_{false};  // of the first host only
};

class Workers {
 protected:
  // More than a worker takes from its last work to its sleep.
  static constexpr unsigned kStepsToSleep = 60;

  Workers() {
    for (int i = 0; i < Host::kCount; ++i) hosts_[static_cast<std::size_t>(i)].start(hosts_, i);
  }

  sched::Idle idle_{Host::kCount};
  std::array<Host, Host::kCount> hosts_;
  std::array<Work, 2> work_;
};

enum class Way { kInjection, kInjectionBatch, kInbox, kReady, kUnstarted, kStop, kTimer };

// One worker falls asleep while work comes. The other one is busy for ever, or not a worker at all.
template <Way kWay>
class WakeTest : public rl::test_suite<WakeTest<kWay>, 2>, Workers {
 public:
  void before() {
    idle_.enter();
    if (kWay == Way::kReady || kWay == Way::kUnstarted) idle_.enter();
    hosts_[0].periods_end = false;
  }

  void thread(unsigned index) {
    if (index == 1) {
      let_others_go_first(kStepsToSleep);
      return make_work();
    }
    const bool found = idle_.find_work(hosts_[0], 0);
    RL_ASSERT(found == (kWay != Way::kStop));
    RL_ASSERT(!found || hosts_[0].take() == &work_[0]);
  }

 private:
  struct Alarm : sched::Timer {
    Alarm(Host& of, Work* what) : Timer(&fire_it), host(of), work(what) {}
    static void fire_it(Timer& timer, std::int64_t, sched::WakeBatch&) {
      auto& self = static_cast<Alarm&>(timer);
      RL_ASSERT(self.host.ready.push(self.work));
    }
    Host& host;
    Work* work;
  };

  void make_work() {
    Host& self = hosts_[1];
    switch (kWay) {
      case Way::kInjection:
        hosts_[0].injection.push(&work_[0]);
        idle_.rung(self);
        break;
      case Way::kInjectionBatch: {
        base::IntrusiveQueue<Work, &Work::link> batch;
        batch.push(&work_[0]);
        hosts_[0].injection.push_all(batch);
        idle_.rung(self);
        break;
      }
      case Way::kInbox:
        hosts_[0].inbox.push(&work_[0]);
        idle_.reach(self, 0);
        break;
      case Way::kReady:
        self.make_ready(idle_, &work_[0]);
        break;
      case Way::kUnstarted:
        self.spawn(idle_, &work_[0]);
        break;
      case Way::kStop:
        self.stop(idle_);
        break;
      case Way::kTimer:
        hosts_[0].timers.arm_outside(alarm_, Host::kNowNs, 0);
        idle_.reach(self, 0);
        break;
    }
  }

  Alarm alarm_{hosts_[0], &work_[0]};
};

// A timer that moved meanwhile: the watcher has fired it, and set it to a later time. The owner, falling
// asleep, sees that or what was before, but nothing older; and what somebody arms then it does not miss.
class MovedTimerTest : public rl::test_suite<MovedTimerTest, 2>, Workers {
 public:
  void before() {
    idle_.enter();
    hosts_[0].timers.arm(moving_, Host::kNowNs, 0);
  }

  void thread(unsigned index) {
    if (index == 1) {
      let_others_go_first(kStepsToSleep);
      sched::WakeBatch batch;
      hosts_[0].timers.fire_due(Host::kNowNs, batch);
      hosts_[0].inbox.push(&work_[0]);
      return idle_.reach(hosts_[1], 0);
    }
    const std::int64_t earliest = hosts_[0].timers.earliest();
    RL_ASSERT(earliest == Host::kNowNs || earliest == kLaterNs);
    RL_ASSERT(idle_.find_work(hosts_[0], 0) && hosts_[0].take() == &work_[0]);
    RL_ASSERT(hosts_[0].timers.earliest() == kLaterNs);
  }

 private:
  static constexpr std::int64_t kLaterNs = 1'000;

  struct Moving : sched::Timer {
    Moving() : Timer(&fire_it) {}
    static void fire_it(Timer& timer, std::int64_t now_ns, sched::WakeBatch&) {
      timer.home->insert(timer, kLaterNs, now_ns);
    }
  };
  Moving moving_;
};

// A worker spawns quietly, and computes on; the other one falls asleep. It watches, or is rung to watch.
class WatchTest : public rl::test_suite<WatchTest, 2>, Workers {
 public:
  void before() {
    idle_.enter();
    idle_.enter();
  }

  void thread(unsigned index) {
    if (index == 1) {
      let_others_go_first(kStepsToSleep);
      return hosts_[1].spawn_quietly(idle_, &work_[0]);
    }
    RL_ASSERT(idle_.find_work(hosts_[0], 0) && hosts_[0].take() == &work_[0]);
  }
};

// Both have nothing to do when one fiber comes. Who gets it spawns another one quietly, and computes on: the
// other worker must get that one, however the watcher's post changes hands.
class PostTest : public rl::test_suite<PostTest, 2>, Workers {
 public:
  void before() {
    idle_.enter();
    idle_.enter();
  }

  void thread(unsigned index) {
    Host& self = hosts_[index];
    if (index == 0) {
      let_others_go_first(kStepsToSleep);
      hosts_[0].injection.push(&work_[0]);
      idle_.rung(self, 1);
    }
    Work* work = nullptr;
    while (work == nullptr) {  // what was found may be stolen again
      RL_ASSERT(idle_.find_work(self, static_cast<int>(index)));
      work = self.take();
    }
    if (work == &work_[0]) self.spawn_quietly(idle_, &work_[1]);
  }
};

// Two fibers come at once. Who takes both runs the first one for ever: the other worker must get the second.
class ShareTest : public rl::test_suite<ShareTest, 2>, Workers {
 public:
  void before() {
    idle_.enter();
    idle_.enter();
  }

  void thread(unsigned index) {
    Host& self = hosts_[index];
    if (index == 0) {
      let_others_go_first(kStepsToSleep);
      base::IntrusiveQueue<Work, &Work::link> batch;
      for (Work& work : work_) batch.push(&work);
      hosts_[0].injection.push_all(batch);
      idle_.rung(self, 1);
    }
    while (idle_.find_work(self, static_cast<int>(index)) && self.take() == nullptr) {
    }
  }
};

// One worker watches. The other one is idle for a moment, so that the watcher may give its post up, and then
// runs for ever, with a fiber left in its queue.
class PauseTest : public rl::test_suite<PauseTest, 2>, Workers {
 public:
  void before() {
    idle_.enter();
    idle_.enter();
  }

  void thread(unsigned index) {
    Host& self = hosts_[index];
    if (index == 1) {
      let_others_go_first(2 * kStepsToSleep);
      for (Work& work : work_) self.inbox.push(&work);
    }
    while (idle_.find_work(self, static_cast<int>(index)) && self.take() == nullptr) {
    }
  }
};

TEST_CASE("relacy: work that comes while a worker falls asleep is found", "[sleep][B4][B11]") {
  REQUIRE(explore_randomly<WakeTest<Way::kInjection>>(50'000));
  REQUIRE(explore_randomly<WakeTest<Way::kInjectionBatch>>(50'000));
  REQUIRE(explore_randomly<WakeTest<Way::kInbox>>(50'000));
  REQUIRE(explore_randomly<WakeTest<Way::kReady>>(50'000));
  REQUIRE(explore_randomly<WakeTest<Way::kUnstarted>>(50'000));
  REQUIRE(explore_randomly<WakeTest<Way::kStop>>(50'000));
}

TEST_CASE("relacy: a timer that comes while a worker falls asleep is found", "[timer][B10][B11]") {
  REQUIRE(explore_randomly<WakeTest<Way::kTimer>>(50'000));
  REQUIRE(explore_randomly<MovedTimerTest>(50'000));
}

TEST_CASE("relacy: what is spawned quietly is watched", "[watch][B4][B11]") {
  REQUIRE(explore_randomly<WatchTest>(50'000));
  REQUIRE(explore_randomly<PostTest>(50'000));
  REQUIRE(explore_randomly<ShareTest>(50'000));
  REQUIRE(explore_randomly<PauseTest>(50'000));
}

}  // namespace
}  // namespace weft::relacy
