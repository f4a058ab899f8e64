#include "runtime/sched/worker.h"

#include <cerrno>
#include <utility>

#include <cxxabi.h>

#include "runtime/base/check.h"
#include "runtime/base/plant.h"
#include "runtime/os/clock.h"
#include "runtime/sched/core.h"
#include "runtime/sched/ending.h"
#include "runtime/sched/fiber_life.h"
#include "runtime/sched/operation_wait.h"
#include "runtime/sched/status.h"
#include "runtime/sched/uring_driver.h"
#include "runtime/sched/wake_batch.h"

namespace weft::sched {
namespace {

constexpr std::uint64_t kTurnCycles = 250'000;           // about 100 us on any processor of today
constexpr std::uint64_t kOldestFirstCycles = 2'500'000;  // about 1 ms

}  // namespace

Worker::Worker(Core& core, int index)
    : events(index),
      chaos_(index),
      alone_(core.options().workers == 1),
      shuffles_(core.options().shuffle_wakes && core.options().workers > 1),
      timers_(absl::ToInt64Nanoseconds(core.options().timer_slack)),
      stacks_(core.stacks()),
      driver_(std::make_unique<UringDriver>()),
      core_(core),
      index_(index) {}

Worker::~Worker() = default;

absl::Status Worker::set_up(AlternateStack& alternate) {
  auto& driver = static_cast<UringDriver&>(*driver_);
  if (int error = driver.open(); error < 0) return errno_status(driver.failed_step(), error);
  if constexpr (!base::planted(60)) {
    if (absl::Status status = alternate.enter(); !status.ok()) return status;
  }
  blocks_ = BlockCache::lease();
  if (blocks_ == nullptr) {
    return absl::ResourceExhaustedError("no memory for the control blocks of a worker");
  }
  reserve_ = stacks_.acquire();
  return reserve_ != nullptr ? absl::OkStatus() : core_.stacks().shortage();
}

void Worker::main() {
  set_current_worker(this);
  thread_state_ = reinterpret_cast<ThreadState*>(abi::__cxa_get_globals());
  errno_ = &errno;
  fp_control_ = arch::read_fp_control();
  AlternateStack alternate;
  absl::Status status =
      status_or_bare(absl::StatusCode::kResourceExhausted, [&] { return set_up(alternate); });
  const bool runs = status.ok();
  if (runs && index_ == 0) blocks_->prewarm(core_.options().prewarm);
  core_.worker_started(index_, std::move(status));
  if (runs) {
    hooks_.start(errno_);
    core_.idle().enter();
    begin_turn();
    weft_loop(this);
    core_.worker_stopped();
    handle_messages();  // about fibers that have ended: their blocks go back
  }
  if (reserve_ != nullptr) stacks_.release(std::exchange(reserve_, nullptr));
  driver_->leave_thread();
  if (blocks_ != nullptr) BlockCache::give_back(blocks_);
  set_current_worker(nullptr);
}

// ---- The running fiber

// Not inlined: nothing that was computed from the thread before may be used after the switch.
[[gnu::noinline]] void Worker::leave(Commit commit, void* argument) {
  WorkerSection section;
  Worker* worker = current_worker();
  FiberBlock* fiber = worker->current_;
  // Called inside catch, as part of unwinding, or between a failed call and a look at errno: what the
  // thread keeps of that is the fiber's.
  const ThreadState state = *worker->thread_state_;
  const int error = *worker->errno_;
  worker->commit_ = commit;
  worker->commit_argument_ = argument;
  worker->leave_fp_control(*fiber);
  Worker* const by = switch_to_worker(*fiber, *worker);
  if constexpr (!base::planted(56)) worker = by;
  if (__builtin_expect(fiber->traits.keeps_fp_control(), 0)) {
    if constexpr (!base::planted(51)) arch::load_fp_control(fiber->frame->fp_control);
  }
  if constexpr (!base::planted(52)) *worker->thread_state_ = state;
  if constexpr (!base::planted(57)) *worker->errno_ = error;
  if (kChaos && commit != &commit_yield) stir();
}

// A fiber's own control words are kept, and everybody else's put back. What a fiber without its own changes,
// whoever runs next would see: debug builds look.
void Worker::leave_fp_control(FiberBlock& fiber) const {
  if (__builtin_expect(fiber.traits.keeps_fp_control(), 0)) {
    fiber.frame->fp_control = arch::read_fp_control();
    arch::load_fp_control(fp_control_);
  } else {
    WEFT_DCHECK(arch::read_fp_control() == fp_control_,
                "a fiber without preserve_fp_control changed a floating-point control word");
  }
}

void Worker::commit_yield(Worker& worker, FiberBlock& fiber, void*) {
  happens_before(&fiber.frame);
  if (kChaos && worker.scatter(fiber)) return;
  if (base::planted(48) && fiber.id % 8 == 0) return worker.make_ready(fiber);
  worker.push_ready(fiber);
}

void Worker::yield() { leave(&commit_yield, nullptr); }

void Worker::maybe_yield() {
  stir();
  WorkerSection section;
  Worker* worker = current_worker();
  if (arch::cycles() - worker->turn_began_cycles_ > kTurnCycles) yield();
}

int Worker::perform(Operation& operation, unsigned accepts) {
  stir();
  WorkerSection section;
  Worker* worker = current_worker();
  FiberBlock* fiber = worker->current_;
  operation.fiber = fiber;
  operation.accepts = accepts;
  fiber->frame->operation = &operation;
  worker->driver_->prepare(operation);
  leave(&commit_operation, &operation);
  fiber->frame->operation = nullptr;
  return operation.result;
}

void Worker::commit_operation(Worker& worker, FiberBlock& fiber, void* operation) {
  if (!park_on_operation(*static_cast<Operation*>(operation), fiber, *worker.driver_,
                         static_cast<unsigned>(worker.index_))) {
    happens_before(&fiber);
    worker.push_ready(fiber);
  }
}

// As leave(), but nothing of the thread's state is kept.
Worker* Worker::end() {
  WorkerSection section;
  Worker* worker = current_worker();
  worker->leave_fp_control(*worker->current_);
  worker->commit_ = &commit_exit;
  return worker;
}

void Worker::commit_exit(Worker& worker, FiberBlock& fiber, void*) {
  worker.release_stack(fiber);
  add(worker.counters.ended);
  WakeBatch batch;
  finish_fiber(fiber, worker.blocks_, batch);
  if (!batch.empty()) batch.deliver();
  if (worker.core_.draining()) worker.core_.note_end();
}

// ---- Making runnable

void Worker::make_ready(FiberBlock& fiber) {
  WorkerSection section;
  events.note(Event::kWake, fiber.id);
  happens_before(&fiber);
  if (fiber.traits.pinned() && fiber.frame != nullptr) {
    Worker* home = fiber.frame->pinned_to;
    if (home != this) return core_.send_ready(fiber, home->index_);
    if (!pinned_.push(&fiber)) core_.inject(fiber);
    return;
  }
  if (kChaos && scatter(fiber)) return;
  if (shuffles_) return core_.send_ready(fiber, (index_ + 1) % core_.worker_count());
  if (alone_) {
    // relaxed: a single worker has it for itself.
    FiberBlock* before = next_slot_.load(std::memory_order_relaxed);
    next_slot_.store(&fiber, std::memory_order_relaxed);
    if (before != nullptr) push_ready(*before);
    return;
  }
  chaos_.stall();
  // [slot] Only we fill the slot, so a store is enough for an empty one. A full one may be emptied by the
  // watcher under our hands. release: the watcher finds the fiber as its waker left it.
  FiberBlock* before = next_slot_.load(std::memory_order_relaxed);
  if (before == nullptr) {
    next_slot_.store(&fiber, std::memory_order_release);
  } else {
    before = next_slot_.exchange(&fiber, std::memory_order_acq_rel);
  }
  if (before != nullptr) {
    push_ready(*before);
    ready_.publish_seq_cst();  // [sleep] then look for sleepers
  }
  announce_ready();
}

void Worker::push_ready(FiberBlock& fiber) {
  auto& queue = fiber.traits.pinned() ? pinned_ : ready_;
  if (__builtin_expect(!queue.push(&fiber), 0)) core_.inject(fiber);
}

// Tells others of what was made ready and published: a sleeper if it is much, the watcher if it is little.
void Worker::announce_ready() {
  chaos_.stall();
  if (core_.idle().sleepers() == 0) return;  // [sleep] the waker's second step
  if (ready_.size() >= kReadyWorthARing) {
    core_.idle().rung(*this, (index_ + 1) % core_.worker_count());
  } else {
    core_.idle().watched(*this);
  }
}

void Worker::inject(FiberBlock& fiber) { core_.inject(fiber); }

void Worker::announce_unstarted(bool first) {
  // The first one alone is probably joined at once: it runs here soon, or the watcher starts it. That needs no
  // publishing: who goes to sleep and misses it sees that we are busy, and becomes the watcher itself. [watch]
  if (!first) unstarted_.publish_seq_cst();  // [sleep] then look for sleepers
  if (core_.idle().sleepers() == 0) return;
  if (first) {
    core_.idle().watched(*this);
  } else {
    core_.idle().rung(*this, (index_ + 1) % core_.worker_count());
  }
}

// ---- The loop

WeftNext Worker::next() {
  if (FiberBlock* left = current_) {
    current_ = nullptr;
    WEFT_DCHECK(has_its_own_stack(*left), "two fibers on one stack: seen when one left");
    note_leaving(*left);
    commit_(*this, *left, commit_argument_);
  }
  while (true) {
    FiberBlock* fiber = pick();
    const bool starts = fiber != nullptr && fiber->frame == nullptr;
    if (starts && !bind(*fiber)) continue;
    WEFT_DCHECK(fiber == nullptr || fiber->claim.load().state() == FiberState::kRunnable,
                "a fiber that is not ready was taken from a queue");
    WEFT_DCHECK(fiber == nullptr || has_its_own_stack(*fiber),
                "two fibers on one stack: seen before one runs");
    current_ = fiber;
    if (fiber != nullptr) events.note(starts ? Event::kStart : Event::kRun, fiber->id);
    return {fiber, starts};
  }
}

// Before the commit step: after it the fiber may run elsewhere, or be gone.
void Worker::note_leaving(const FiberBlock& fiber) {
  events.note(commit_ == &commit_yield  ? Event::kYield
              : commit_ == &commit_exit ? Event::kEnd
                                        : Event::kPark,
              fiber.id);
}

FiberBlock* Worker::pick() {
  // The clock is looked at every sixteenth time.
  if (__builtin_expect(++ran_ % 16 == 0, 0) && turn_is_over()) return pick_in_new_turn(true);
  if (FiberBlock* fiber = take_local()) return counted(fiber);
  return pick_in_new_turn(false);
}

bool Worker::turn_is_over() const {
  return ran_ >= kFibersPerTurn || driver_->prepared() >= kOperationsPerTurn ||
         arch::cycles() - turn_began_cycles_ > kTurnCycles;
}

// What came from outside, then on; with nothing left, whatever Idle finds.
[[gnu::noinline]] FiberBlock* Worker::pick_in_new_turn(bool something_left) {
  while (true) {
    if (something_left) {
      if (stopping()) return nullptr;
      collect();
      if (share_left()) core_.idle().rung(*this, (index_ + 1) % core_.worker_count());
    } else if (!core_.idle().find_work(*this, index_)) {
      return nullptr;
    }
    begin_turn();
    if (FiberBlock* fiber = take_local()) return counted(fiber);
    something_left = false;
  }
}

FiberBlock* Worker::counted(FiberBlock* fiber) {
  add(counters.switches);
  return fiber;
}

// After the kernel entry, never before it: the entry itself may have taken a whole turn's time.
void Worker::begin_turn() {
  ran_ = 0;
  turn_began_cycles_ = arch::cycles();
  if (turn_began_cycles_ - oldest_first_cycles_ > kOldestFirstCycles) {
    oldest_first_ = true;
    oldest_first_cycles_ = turn_began_cycles_;
  }
  now_ns_ = os::now_ns();
}

FiberBlock* Worker::take_local() {
  if (kChaos && chaos_.strikes()) disarrange();
  if (FiberBlock* fiber = take_next_slot()) return fiber;
  slot_in_a_row_ = 0;
  if (__builtin_expect(oldest_first_, 0)) {
    oldest_first_ = false;
    // It counts as a turn: or fibers that spawn and yield would outrun those made ready.
    unstarted_turn_ = true;
    if (FiberBlock* fiber = unstarted_.pop_oldest()) return fiber;
  }
  // [turn] One of each: ready ones first would hold up a thousand new fibers behind two that yield.
  unstarted_turn_ = !unstarted_turn_;
  FiberBlock* fiber = unstarted_turn_ ? pop_unstarted() : pop_ready();
  if (fiber == nullptr) fiber = unstarted_turn_ ? pop_ready() : pop_unstarted();
  // The slot had used up its right to go first, and nobody else is there.
  return fiber != nullptr ? fiber : take_next_slot();
}

FiberBlock* Worker::pop_unstarted() {
  return alone_ ? unstarted_.pop_unshared() : unstarted_.pop();
}

// [turn] One of each here as well: pinned ones, and those that anybody may run.
FiberBlock* Worker::pop_ready() {
  if (__builtin_expect(!pinned_.empty(), 0)) {
    pinned_turn_ = !pinned_turn_;
    if (pinned_turn_ || ready_.empty()) return pinned_.pop_unshared();
  }
  return alone_ ? ready_.pop_unshared() : ready_.pop();
}

FiberBlock* Worker::take_next_slot() {
  // relaxed: a hint; ours, if alone
  FiberBlock* fiber = next_slot_.load(std::memory_order_relaxed);
  if (fiber == nullptr) return nullptr;
  if (slot_in_a_row_ >= kSlotInARow && !base::planted(40)) return nullptr;
  ++slot_in_a_row_;
  if (alone_) {
    next_slot_.store(nullptr, std::memory_order_relaxed);  // relaxed: as above
    return fiber;
  }
  // [slot] the watcher may be faster
  return next_slot_.exchange(nullptr, std::memory_order_acq_rel);
}

// Gives an unstarted fiber its stack. One that gets none ends unrun, on the reserve: its closure may
// park in a destructor. False: the reserve is in use, and the fiber waits for it.
bool Worker::bind(FiberBlock& fiber) {
  std::size_t bytes = 0;
  Refusal refusal = Refusal::kNone;
  if (__builtin_expect(fiber.traits.has_extras(), 0)) {
    bytes = BlockCache::extras_of(&fiber)->stack_bytes;
    if (!validate_stack_bytes(bytes).ok()) {
      bytes = 0;
      refusal = Refusal::kBadStackSize;
    }
  }
  Stack* stack = stacks_.acquire(bytes);
  const bool on_reserve = stack == nullptr;
  if (__builtin_expect(on_reserve, 0)) {
    stack = std::exchange(reserve_, nullptr);
    if (stack == nullptr) {
      stackless_.push(&fiber);
      return false;
    }
    if (refusal == Refusal::kNone) refusal = Refusal::kNoStack;
  }
  bind_stack(fiber, *stack, fiber.traits.pinned() ? this : nullptr);
  fiber.frame->on_reserve = on_reserve;
  fiber.frame->refusal = refusal;
  happens_before(&fiber);
  return true;
}

void Worker::release_stack(FiberBlock& fiber) {
  const bool on_reserve = fiber.frame->on_reserve;
  Stack* stack = unbind_stack(fiber);
  if (__builtin_expect(on_reserve, 0)) return release_reserve(stack);
  stacks_.release(stack);
}

void Worker::release_reserve(Stack* stack) {
  if (reserve_ != nullptr) return stacks_.release(stack);
  reserve_ = stack;
  // Those that waited for it try once more to get a stack of their own.
  while (FiberBlock* waiting = stackless_.pop()) {
    if (!unstarted_.push(waiting)) core_.inject(*waiting);
  }
}

bool Worker::queues_empty() const {
  return next_slot_.load(std::memory_order_relaxed) == nullptr &&  // relaxed: only we fill it
         ready_.empty() && unstarted_.empty() && pinned_.empty();
}

}  // namespace weft::sched
