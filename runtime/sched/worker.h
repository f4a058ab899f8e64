// Worker: a kernel thread's scheduler. Its loop runs fibers; the rest of this file is what fibers, and
// other threads, ask of it.
//
//   weft_loop(&worker);                      // runs what next() returns until the runtime stops
//   Worker::leave(commit, argument);         // the running fiber parks; commit runs on our own stack
//   worker.make_ready(fiber);                // somebody claimed it
//
// One turn runs fibers until 256 have run, or 100 us are over, or 256 operations are prepared; then it
// enters the kernel once, if there is a reason to, and takes in what came from outside. Of the timers that
// are due it fires no more than fibers have run, or 64 when none is ready: a hundred thousand at once would
// stand before everything else that comes. With nothing to run it goes through Idle::find_work, which also
// steals and sleeps.
//
// What runs next, in this order: the next-slot (the fiber just woken; 32 times in a row at most), then
// unstarted and ready fibers in turn, one each. [turn]
//
// Requires: everything but inbox pushes, steal_into() and the idle words is called by the owner: the
// worker's own stack, or the fiber that it runs.
// Promises: a fiber that is made ready runs once for it. No inner loop is unbounded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/fp_control.h"
#include "arch/x86_64/switch.h"
#include "runtime/base/atomic.h"
#include "runtime/base/inbox.h"
#include "runtime/base/ready_queue.h"
#include "runtime/base/spawn_deque.h"
#include "runtime/os/kernel_thread.h"
#include "runtime/sched/block_pool.h"
#include "runtime/sched/chaos.h"
#include "runtime/sched/event_log.h"
#include "runtime/sched/fiber.h"
#include "runtime/sched/io_driver.h"
#include "runtime/sched/overflow.h"
#include "runtime/sched/stack_cache.h"
#include "runtime/sched/switch_hooks.h"
#include "runtime/sched/timers.h"

namespace weft::sched {

class Core;
class Worker;

// What a fiber that switches to another one will touch first, a few fibers ahead of time.
struct FiberPrefetch {
  static void far_ahead(const FiberBlock* fiber) { arch::prefetch(fiber); }
  static void near_ahead(const FiberBlock* fiber) {
    // A thief may run the fiber meanwhile, so this read is a race: harmless for an address that is only
    // prefetched, but TSan would say so.
    if constexpr (base::kTsan) return;
    const char* rsp = static_cast<const char*>(fiber->rsp);
    arch::prefetch(rsp);
    arch::prefetch(rsp + 64);
  }
};

// The part of a fiber's state that C++ and libc keep per kernel thread: kept on the fiber's stack while
// it is away, so that two fibers that leave inside a catch do not swap their exceptions.
struct ThreadState {
  void* caught;            // of __cxa_get_globals(): the chain of caught exceptions,
  std::uint64_t uncaught;  // and the count of those in flight, with its padding
};

// The first 8 bytes of a worker belong to the switch.
struct SwitchedStack {
  void* rsp = nullptr;
};

class Worker : private SwitchedStack {
 public:
  // What happens after the fiber has left its stack; runs on the worker's.
  using Commit = void (*)(Worker& worker, FiberBlock& fiber, void* argument);

  static constexpr unsigned kFibersPerTurn = 256;
  static constexpr unsigned kOperationsPerTurn = 256;
  static constexpr unsigned kSlotInARow = 32;
  static constexpr unsigned kTimersPerTurn = 64;
  static constexpr std::size_t kReadyWorthARing = 8;
  static constexpr unsigned kStealMax = 32;

  Worker(Core& core, int index);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // The worker's life, on its own kernel thread: sets up, reports, loops, ends.
  void main();

  // ---- The running fiber

  // Suspends the calling fiber: `commit` runs once it has left. Returns when it is resumed, perhaps on
  // another worker. Call from: a fiber. Parks.
  static void leave(Commit commit, void* argument);
  // Lets others run. Call from: a fiber.
  static void yield();
  static void maybe_yield();
  // Yields when chaos strikes, on a fiber; nothing in other builds. Call from: any thread. Parks.
  static void stir() {
    if constexpr (kChaos) stir_by_chaos();
  }
  // Prepares `operation` and parks until it has completed, or was cancelled by one of `accepts`.
  // Returns its result; -ECANCELED when it was cut short. Call from: a fiber. Parks.
  static int perform(Operation& operation, unsigned accepts);
  // The calling fiber has ended: the worker that runs it, which does the rest once the fiber has left its
  // stack. Call from: fiber_entry alone.
  static Worker* end();

  FiberBlock* current() const { return current_; }
  // What a new fiber finds of the thread's state: nothing caught, errno 0.
  void clear_thread_state() {
    WorkerSection section;
    *thread_state_ = {};
    *errno_ = 0;
  }

  // ---- Making runnable

  // A fiber that was claimed; runs next here, or goes where it is pinned. Call from: the owner.
  void make_ready(FiberBlock& fiber);
  // A fiber that has not started. Call from: the owner.
  void push_unstarted(FiberBlock& fiber) {
    WorkerSection section;
    add(counters.spawned);
    events.note(Event::kSpawn, fiber.id);
    if (kChaos && chaos_.strikes()) return inject(fiber);
    const bool first = unstarted_.empty();
    if (__builtin_expect(!unstarted_.push(&fiber), 0)) return inject(fiber);
    if (!alone_) announce_unstarted(first);
  }
  // From another worker or thread: a pinned fiber, or one that must run here. The caller then makes the
  // worker look. Call from: any thread.
  void push_ready_inbox(FiberBlock& fiber) { ready_inbox_.push(&fiber); }
  // "Look at this block's claim word." Call from: any thread.
  void push_message(FiberBlock& fiber) { messages_.push(&fiber); }

  // ---- The loop

  // Finishes what the last fiber began by leaving, and says who runs next; null: the runtime stops.
  // Call from: weft_next alone.
  WeftNext next();

  // ---- The host of Idle (idle.h says what each must do; worker_idle.cc)
  bool stopping() const;
  bool collect();
  bool steal(int victim);
  bool share_left() const;
  bool quiet_work() const { return !queues_empty(); }
  bool anything();
  bool has_timers() const { return timers_.earliest() != os::kNever; }
  bool spin();
  void sleep(bool timed);
  bool rescue();
  void ring(int worker);

  // ---- Its parts
  Core& core() const { return core_; }
  int index() const { return index_; }
  Timers& timers() { return timers_; }
  BlockCache* blocks() const { return blocks_; }
  IoDriver& driver() const { return *driver_; }
  os::KernelThread& thread() { return thread_; }
  WorkerHooks& hooks() { return hooks_; }
  std::int64_t now_ns() const { return now_ns_; }  // as of this turn's beginning
  // True when nothing would run if the calling fiber parked now: then a reply had better leave at once.
  bool nothing_else() const { return queues_empty(); }

  // Counters that others read; each is written by the owner alone.
  struct Counters {
    base::Atomic<std::uint64_t> switches{0}, spawned{0}, ended{0}, steals{0}, sleeps{0};
    base::Atomic<std::uint64_t> kernel_entries{0}, operations{0}, stacks{0};
  };
  Counters counters;

  [[no_unique_address]] EventLog events;

 private:
  friend class WakeBatch;

  absl::Status set_up(AlternateStack& alternate);
  FiberBlock* pick();
  FiberBlock* pick_in_new_turn(bool something_left);
  FiberBlock* counted(FiberBlock* fiber);
  void note_leaving(const FiberBlock& fiber);
  bool turn_is_over() const;
  [[gnu::always_inline]] inline FiberBlock* take_local();
  [[gnu::always_inline]] inline FiberBlock* take_next_slot();
  [[gnu::always_inline]] inline FiberBlock* pop_ready();
  [[gnu::always_inline]] inline FiberBlock* pop_unstarted();
  bool bind(FiberBlock& fiber);
  void release_stack(FiberBlock& fiber);
  void release_reserve(Stack* stack);
  void push_ready(FiberBlock& fiber);
  void inject(FiberBlock& fiber);
  static void stir_by_chaos();
  bool scatter(FiberBlock& fiber);
  void disarrange();
  void announce_ready();
  void announce_unstarted(bool first);
  void take_in(WakeBatch& batch);
  void handle_messages();
  void take_injected();
  unsigned steal_into(Worker& victim);
  bool keep(FiberBlock& fiber);
  bool queues_empty() const;
  void begin_turn();
  [[gnu::always_inline]] inline void leave_fp_control(FiberBlock& fiber) const;
  static void commit_yield(Worker& worker, FiberBlock& fiber, void*);
  static void commit_operation(Worker& worker, FiberBlock& fiber, void* operation);
  static void commit_exit(Worker& worker, FiberBlock& fiber, void*);
  static void add(base::Atomic<std::uint64_t>& counter, std::uint64_t n = 1) {
    // release: who sees a fiber counted sees what it did; relaxed load: only we write it.
    counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_release);
  }

  [[no_unique_address]] Chaos chaos_;
  FiberBlock* current_ = nullptr;
  Commit commit_ = nullptr;
  void* commit_argument_ = nullptr;
  ThreadState* thread_state_ = nullptr;  // of this kernel thread
  int* errno_ = nullptr;
  arch::FpControl fp_control_;  // of who started the runtime: of all fibers without their own

  unsigned ran_ = 0;  // fibers in this turn
  unsigned slot_in_a_row_ = 0;
  bool unstarted_turn_ = false;  // whose turn it is, unstarted or ready
  bool pinned_turn_ = false;     // the same among the ready ones
  bool oldest_first_ = false;    // once in a millisecond the oldest unstarted fiber goes first
  const bool alone_;             // the only worker: nobody to tell, nobody who steals
  const bool shuffles_;
  std::uint64_t turn_began_cycles_ = 0;
  std::uint64_t oldest_first_cycles_ = 0;  // when that was last
  std::int64_t now_ns_ = 0;
  static constexpr std::int64_t kSpinMaxNs = 50'000;
  static constexpr std::int64_t kSpinMinNs = 1'000;
  std::int64_t spin_limit_ns_ = kSpinMaxNs;

  // [slot] The owner fills and empties it; the watcher may empty it for a worker that is stuck. With a
  // single worker plain loads and stores do.
  base::Atomic<FiberBlock*> next_slot_{nullptr};

  base::SpawnDeque<FiberBlock> unstarted_;
  base::ReadyQueue<FiberBlock, FiberPrefetch> ready_;
  base::ReadyQueue<FiberBlock, FiberPrefetch> pinned_;  // nobody steals from it
  base::Inbox<FiberBlock, &FiberBlock::link> ready_inbox_;
  base::Inbox<FiberBlock, &FiberBlock::message_link> messages_;

  Timers timers_;
  BlockCache* blocks_ = nullptr;
  StackCache stacks_;
  // For the closures of fibers that get no stack: they are destroyed on this one, one after the other.
  Stack* reserve_ = nullptr;
  base::IntrusiveQueue<FiberBlock, &FiberBlock::link> stackless_;  // while the reserve is in use
  std::unique_ptr<IoDriver> driver_;
  os::KernelThread thread_;

  WorkerHooks hooks_;
  Core& core_;
  const int index_;

  // The watcher's memory of this worker: how many switches it had made at the last look.
  std::uint64_t seen_switches_ = 0;
};

#if defined(WEFT_MODEL) || defined(WEFT_RELACY)
Worker* current_worker();  // in a model they are the model's own
FiberBlock* current_fiber();
#else
// The worker of the calling kernel thread; null on a thread that is not one. Never kept over a park: the
// fiber may be on another kernel thread afterwards.
//
// By hand, so that no compiler keeps the address of the variable over a switch: it takes thread-local
// addresses for constant in a function, and a fiber may be on another thread after each call.
[[gnu::always_inline]] inline Worker* current_worker() {
  Worker* worker;
  asm volatile("movq weft_worker@gottpoff(%%rip), %0\n\tmovq %%fs:(%0), %0" : "=r"(worker));
  return worker;
}

// The calling fiber; null where there is none.
[[gnu::always_inline]] inline FiberBlock* current_fiber() {
  WorkerSection section;
  Worker* worker = current_worker();
  return worker == nullptr ? nullptr : worker->current();
}
#endif
// The control blocks of the calling worker; null on other threads.
inline BlockCache* current_blocks() {
  Worker* worker = current_worker();
  return worker == nullptr ? nullptr : worker->blocks();
}
// Call from: the worker, at its start and its end; a forked child.
void set_current_worker(Worker* worker);

}  // namespace weft::sched
