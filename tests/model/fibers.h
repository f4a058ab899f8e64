// Fibers under the controlled scheduler: the core that the protocols of runtime/sched are linked with.
//
//   model::Fibers fibers(schedule, 2);                        // two workers
//   sched::FiberBlock& waiter = fibers.add("waiter", [&] { sched::wait(word, word.lock(), node, kCancel); });
//   fibers.take_reference(waiter);
//   schedule.add("canceller", [&] { fibers.request(waiter, kCancel); fibers.drop_reference(waiter); });
//   schedule.run();
//
// park.cc, wake_batch.cc and their like are compiled as they ship; this file stands for what they call
// in Worker and Core. Workers and fibers are model threads. A fiber acts only while a worker runs it; it
// leaves, and the worker does the commit step while wakers, cancellers and other fibers go on. When that
// is done the worker takes the next fiber that somebody made runnable.
//
// A worker also has a ring: a driver that the model brings (set_driver), and an inbox for messages. Groups
// are in groups.h.
//
// Requires: one object for each schedule, made before the other threads are added.
// Promises: a schedule fails when a fiber is made runnable twice for one wait, or before it has left its
// stack, or while its word does not say so; when it is looked for in a runtime that is not its own; and
// when it never resumes, as a deadlock.
#pragma once

#include <array>
#include <deque>
#include <functional>

#include "runtime/base/inbox.h"
#include "runtime/sched/fiber.h"
#include "runtime/sched/foreign_waiter.h"
#include "runtime/sched/io_driver.h"
#include "runtime/sched/wake_batch.h"
#include "runtime/sched/worker.h"
#include "tests/model/explore.h"

namespace weft::model {

class Fibers {
 public:
  static constexpr int kWorkersMax = 3;

  Fibers(Schedule& schedule, int workers);
  ~Fibers();
  Fibers(const Fibers&) = delete;
  Fibers& operator=(const Fibers&) = delete;

  // A fiber that is new and in a queue. Call from: the body.
  sched::FiberBlock& add(const char* name, std::function<void()> function);
  // A free block and what its fibers will do. Call from: the body.
  sched::FiberBlock& add_free(const char* name, std::function<void()> function);

  // Spawns in two steps, with what launch_fiber() does in between: the block becomes a fiber of that
  // runtime, and it is in a queue. Call from: any thread, while there are other fibers; `freed`.
  void begin(sched::FiberBlock& block, unsigned runtime = 0);
  void enqueue(sched::FiberBlock& block);

  // Called in the commit step of a fiber's exit, before its reference is dropped.
  void set_ended(std::function<void(sched::FiberBlock&, sched::WakeBatch&)> ended) {
    ended_ = std::move(ended);
  }
  // Called when the last reference to a block was dropped; it may begin again.
  void set_freed(std::function<void(sched::FiberBlock&)> freed) { freed_ = std::move(freed); }

  // The rings of the workers. A fiber prepares its operation in that of the worker that runs it.
  void set_driver(int worker, sched::IoDriver& driver);
  void perform(sched::Operation& operation, unsigned accepts);

  // A reference, as a handle has one: the block is not freed while its owner may ask something of it.
  // Call from: the body, to take it; any thread that has it, to drop it.
  void take_reference(sched::FiberBlock& block);
  void drop_reference(sched::FiberBlock& block);

  // Asks, and delivers what follows. Call from: any thread that keeps the block alive.
  static void request(sched::FiberBlock& block, sched::Request what);

  // Whether all blocks were freed. Call from: the predicate of block_until, or the body.
  bool all_ended() const { return live_ == 0; }

  // ---- What the runtime's own names come to here
  static Fibers& current();
  static sched::Core& core();
  static sched::Core& core_of(const sched::FiberBlock& block);
  sched::FiberBlock* running() const;
  void leave(sched::Worker::Commit commit, void* argument);
  void make_ready(sched::FiberBlock& block);
  void send_message(sched::FiberBlock& block, int worker);
  sched::ForeignWaiter& foreign_waiter() {
    return foreign_[static_cast<std::size_t>(current_thread())];
  }

 private:
  enum class Place { kQueued, kOnStack, kLeft, kAway };

  struct Fiber {
    sched::FiberBlock block;
    sched::FiberFrame frame;
    std::function<void()> function;
    base::Atomic<std::uint32_t> references{0};
    Place place = Place::kAway;
    unsigned runtime = 0;
    int worker = 0;  // that runs it, or ran it last
    sched::Worker::Commit commit = nullptr;
    void* argument = nullptr;
    bool given_back = true;  // to the pool: nobody may refer to the block
  };
  struct Ring {
    base::Inbox<sched::FiberBlock, &sched::FiberBlock::message_link> inbox;
    sched::IoDriver* driver = nullptr;
  };

  static Fiber& of(const sched::FiberBlock& block);
  void work(int worker);
  bool has_work(int worker) const;
  void run(Fiber& fiber, int worker);
  void tend_ring(int worker);
  void give_back(sched::FiberBlock& block);
  static void commit_exit(sched::Worker&, sched::FiberBlock& block, void*);
  static void commit_operation(sched::Worker&, sched::FiberBlock& block, void* operation);

  Schedule& schedule_;
  std::deque<Fiber> fibers_;
  std::deque<Fiber*> ready_;
  std::array<Fiber*, kThreadsMax> by_thread_{};
  std::array<sched::ForeignWaiter, kThreadsMax> foreign_;
  std::array<Ring, kWorkersMax> rings_;
  std::function<void(sched::FiberBlock&, sched::WakeBatch&)> ended_;
  std::function<void(sched::FiberBlock&)> freed_;
  int live_ = 0;
};

}  // namespace weft::model
