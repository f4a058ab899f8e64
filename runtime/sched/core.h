// Core: one runtime: its workers, what they share, and the group at the root of all its fibers.
//
//   absl::StatusOr<std::unique_ptr<Core>> core = Core::start(options);
//   (*core)->public_root().spawn([] { ... });
//   (*core)->drain();  (*core)->cancel_all();  (*core)->stop_workers();
//
// A runtime has a number, which its fibers carry in their claim words: from a fiber alone any thread
// finds the runtime, and in it the worker whose ring has the fiber's operation.
//
// Promises: all workers are joined before anything is freed; a thread that is about to ring a worker
// counts as a visitor, and the doorbells outlive the visitors.
#pragma once

#include <weft/runtime.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "runtime/base/atomic.h"
#include "runtime/base/injection_queue.h"
#include "runtime/sched/event_log.h"
#include "runtime/sched/fiber.h"
#include "runtime/sched/group.h"
#include "runtime/sched/idle.h"
#include "runtime/sched/stack_pool.h"

namespace weft::sched {

class Core {
 public:
  static constexpr unsigned kRuntimesMax = 64;
  static constexpr int kWorkersMax = 1024;

  static absl::StatusOr<std::unique_ptr<Core>> start(const Options& options);
  // Requires: no fiber is left.
  ~Core();
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;

  // The runtime of a fiber. Call from: any thread that knows the fiber to be alive.
  static Core& of(const FiberBlock& fiber);

  // Calls visit(core) for every runtime that is alive. Call from: exit(); no runtime may end meanwhile.
  template <class Visit>
  static void for_each(Visit visit) {
    for (unsigned i = 0; i < kRuntimesMax; ++i) {
      if (Core* core = at(i)) visit(*core);
    }
  }

  // A thread that is about to wake somebody here: the runtime is not destroyed before it has left.
  // Requires: made while a fiber of the runtime is known to be alive.
  class Visit {
   public:
    explicit Visit(Core& core) : core_(core) {
      core_.visitors_.fetch_add(1, std::memory_order_acq_rel);
    }
    ~Visit() { core_.visitors_.fetch_sub(1, std::memory_order_release); }  // pairs with ~Core()
    Visit(const Visit&) = delete;
    Visit& operator=(const Visit&) = delete;

   private:
    Core& core_;
  };

  // ---- Making runnable from outside
  // A claimed or unstarted fiber, from a thread that is not one of our workers.
  // Call from: any thread. Never parks.
  void inject(FiberBlock& fiber);
  // To the inbox of one worker, which is made to look. Call from: any thread. Never parks.
  void send_ready(FiberBlock& fiber, int worker);
  void send_message(FiberBlock& fiber, int worker);
  // Arms a timer on some worker. Call from: any thread. Never parks.
  void arm_outside(Timer& timer, std::int64_t deadline_ns, std::int64_t now_ns);

  // ---- The end
  // Sets the draining flag and asks every fiber of this runtime. Call from: any thread. Never parks.
  void drain();
  bool draining() const {
    return draining_.load(std::memory_order_seq_cst);  // [drain] pairs with drain()
  }
  // Waits until no fiber is left, or until the deadline; returns whether none is.
  // Call from: a thread that is not a fiber. Blocks.
  bool wait_until_empty(std::int64_t deadline_ns);
  void cancel_all() { all_.cancel(); }
  bool stopping() const {
    return stopping_.load(std::memory_order_seq_cst);  // [sleep] one of the things looked at again
  }

  // ---- Counting fibers
  // A fiber spawned by a thread that is not a worker; workers count their own.
  void fiber_spawned_outside() { spawned_outside_.fetch_add(1, std::memory_order_acq_rel); }
  // Fibers alive. 0 is exact: at some moment during the call there was none.
  std::uint64_t live() const;
  // Called at the end of a fiber while the runtime drains.
  void note_end();

  // ---- Its parts
  Group& all() { return all_; }
  FiberGroup& public_root() { return root_; }
  int worker_count() const { return static_cast<int>(workers_.size()); }
  Worker& worker(int index) const { return *workers_[static_cast<unsigned>(index)]; }
  Idle& idle() { return idle_; }
  StackPool& stacks() { return stacks_; }
  base::InjectionQueue<FiberBlock, &FiberBlock::link>& injection() { return injection_; }
  const Options& options() const { return options_; }
  unsigned number() const { return number_; }
  bool may_spin() const { return may_spin_; }
  base::Atomic<std::uint32_t>& spinner() { return spinner_; }

  void log(LogLevel level, std::string_view text) const;
  std::string dump_fibers();
  // What the workers did last; empty in builds that do not note it (event_log.h).
  // Call from: any thread. Takes no lock.
  std::string dump_events() const;
  Metrics metrics() const;

  // The host that rings on behalf of threads without a worker.
  struct Ringer {
    Core& core;
    void ring(int worker);
  };

  // Called by a worker when it runs or has failed to start, and when it has left its loop.
  void worker_started(int index, absl::Status status);
  void worker_stopped();

  // exit() was called: workers stay where they are once they have left their fibers. Returns whether all
  // but the caller's got there in time.
  bool hold_workers(std::int64_t deadline_ns);

 private:
  Core(const Options& options, int workers, unsigned number);
  static Core* at(unsigned number);
  absl::Status start_workers();
  void report_fallbacks();
  EventLog& events();
  void stop_workers();

  const Options options_;
  const unsigned number_;
  bool may_spin_ = false;
  StackPool stacks_;
  base::InjectionQueue<FiberBlock, &FiberBlock::link> injection_;
  Idle idle_;
  Group all_;        // every group of the runtime is below it
  FiberGroup root_;  // what others call detach
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<absl::Status> started_;  // by worker; guarded by started_count_
  bool running_ = false;               // the workers have threads, which must be joined

  alignas(64) base::Atomic<bool> draining_{false};
  base::Atomic<bool> stopping_{false};
  base::Atomic<std::uint32_t> started_count_{0};
  base::Atomic<std::uint32_t> stopped_count_{0};
  base::Atomic<bool> exiting_{false};
  base::Atomic<std::uint32_t> spinner_{0};  // 1: a worker spins
  // See Visit: the workers, and their doorbells, stay while there is one.
  alignas(64) base::Atomic<std::uint32_t> visitors_{0};
  alignas(64) base::Atomic<std::uint64_t> spawned_outside_{0};
  [[no_unique_address]] EventLog outside_events_{-1};  // of threads that are no worker
  base::Atomic<std::uint32_t> end_word_{0};  // changes with every end while the runtime drains
};

// Logs with the runtime's own log, or to stderr when there is none. Call from: any thread.
void log(const Core* core, LogLevel level, std::string_view text);

// 'fiber 7 "parser" spawned at main.cc:12'. Call from: any thread that keeps the block alive.
std::string describe(FiberBlock& fiber);
// The same without heap or locks, for signal handlers. Returns the length.
std::size_t describe(FiberBlock& fiber, char* text, std::size_t size);

}  // namespace weft::sched
