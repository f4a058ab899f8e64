#include "runtime/sched/fiber_life.h"

#include <exception>
#include <memory>
#include <new>
#include <utility>

#include <cxxabi.h>

#include "arch/x86_64/switch.h"
#include "runtime/base/check.h"
#include "runtime/sched/core.h"
#include "runtime/sched/group.h"
#include "runtime/sched/status.h"
#include "runtime/sched/worker.h"

namespace weft::sched {
namespace {

void* heap_storage(const weft::internal::FiberCode& code) {
  return ::operator new(code.bytes, std::align_val_t(code.alignment), std::nothrow);
}

bool fits_inline(const weft::internal::FiberCode& code, std::size_t room) {
  return code.bytes <= room && code.alignment <= alignof(void*);
}

std::shared_ptr<ChildException>& exception_in(FiberBlock& fiber) {
  return *static_cast<std::shared_ptr<ChildException>*>(fiber_storage(fiber));
}

// The bits beside it are read by the worker whenever it puts the fiber into a queue.
void set_ending(FiberBlock& fiber, Ending ending) {
  WorkerSection section;
  fiber.ending = static_cast<unsigned>(ending);
}

// From the moment that the ending is written, under the join word's lock, the result belongs to the
// handle; if that is gone already, it is ours to destroy, here, where a destructor may park.
void seal(FiberBlock& fiber, Ending ending) {
  if (ending == Ending::kReturned && fiber.code->destroy_result != nullptr) {
    const std::uint64_t state = fiber.join.lock();
    const bool detached = (state & FiberBlock::kDetached) != 0;
    if (!detached) set_ending(fiber, ending);
    fiber.join.unlock(state);
    if (detached) fiber.code->destroy_result(fiber_storage(fiber));
    return;
  }
  set_ending(fiber, ending);
}

void end_with_error(FiberBlock& fiber, const absl::Status* error) {
  if (error != nullptr) fiber.group->record(fiber, error, nullptr);
  seal(fiber, Ending::kReturned);
}

void run_closure(FiberBlock& fiber) {
  std::shared_ptr<ChildException> thrown;
  try {
    end_with_error(fiber, fiber.code->run(fiber_storage(fiber)));
    return;
  } catch (abi::__forced_unwind&) {
    throw;  // pthread_exit and pthread_cancel must not stop here
  } catch (...) {
    thrown = std::make_shared<ChildException>();
    thrown->pointer = std::current_exception();
  }
  ::new (fiber_storage(fiber)) std::shared_ptr<ChildException>(thrown);
  fiber.group->record(fiber, nullptr, std::move(thrown));
  seal(fiber, Ending::kThrew);
}

[[noreturn]] void fiber_main(FiberBlock& fiber) {
  if (fiber.frame->refusal != Refusal::kNone) {
    refuse_fiber(fiber, fiber.frame->refusal == Refusal::kNoStack
                            ? fiber.group->core()->stacks().shortage()
                            : validate_stack_bytes(BlockCache::extras_of(&fiber)->stack_bytes));
  } else if (fiber.claim.asked(kCancel)) {
    refuse_fiber(fiber, status_of(report_interruption(fiber)));
  } else {
    run_closure(fiber);
  }
  fiber.frame->leaves_for_good = true;
  // and so the defaults are back for the others
  if (fiber.keeps_fp_control) save_fp_control(fiber);
  Worker::exit();
}

WEFT_AROUND_SWITCH void fiber_entry(void* argument, void* by) {
  auto& fiber = *static_cast<FiberBlock*>(argument);
  auto& worker = *static_cast<Worker*>(by);
#if WEFT_ASAN
  StackBounds& own = worker.hooks().own;
  __sanitizer_finish_switch_fiber(nullptr, &own.low, &own.bytes);
#endif
  happens_after(&fiber);
  worker.clear_thread_state();
  fiber_main(fiber);
}

}  // namespace

void* fiber_storage(FiberBlock& fiber) {
  return fiber.heap_storage ? *reinterpret_cast<void**>(fiber.storage) : fiber.storage;
}

FiberBlock* new_fiber(Group& group, const weft::internal::FiberCode& code,
                      const SpawnOptions& options, Site site) {
  Worker* worker = current_worker();
  const bool extras = !options.name.empty() || options.stack_size != 0;
  const std::size_t extras_bytes = extras ? sizeof(FiberExtras) : 0;
  const std::size_t room =
      BlockCache::kClassBytes.back() - offsetof(FiberBlock, storage) - extras_bytes;
  const bool is_inline = fits_inline(code, room);
  const std::size_t storage_bytes = is_inline ? code.bytes : sizeof(void*);

  FiberBlock* fiber;
  {
    WorkerSection section;
    fiber = worker != nullptr ? worker->blocks()->allocate(storage_bytes, extras_bytes)
                              : BlockCache::allocate_shared(storage_bytes, extras_bytes);
  }
  if (fiber == nullptr) return nullptr;
  if (!is_inline) {
    void* memory = heap_storage(code);
    if (memory == nullptr) {
      BlockCache::release(fiber, worker != nullptr ? worker->blocks() : nullptr);
      return nullptr;
    }
    ::new (fiber->storage) void*(memory);
  }
  fiber->code = &code;
  fiber->group = &group;
  fiber->join.unlock(0);
  fiber->file = site.file;
  fiber->line = site.line & 0xffffff;
  fiber->ending = static_cast<unsigned>(Ending::kRunning);
  fiber->pinned = options.pinned;
  fiber->keeps_fp_control = options.preserve_fp_control;
  fiber->has_extras = extras;
  fiber->heap_storage = !is_inline;
  fiber->references.store(2, std::memory_order_relaxed);  // relaxed: published by a queue
  if (extras) {
    FiberExtras& more = *BlockCache::extras_of(fiber);
    more.stack_bytes = options.stack_size;
    more.name[options.name.copy(more.name, sizeof more.name - 1)] = '\0';
  }
  return fiber;
}

void launch_fiber(FiberBlock& fiber) {
  Core& core = *fiber.group->core();
  fiber.claim.begin(core.number());
  fiber.group->add(fiber);
  happens_before(&fiber);
  Worker* worker = current_worker();
  if (worker != nullptr && &worker->core() == &core) {
    worker->push_unstarted(fiber);
  } else {
    core.fiber_spawned_outside();
    core.inject(fiber);
  }
}

void abandon_fiber(FiberBlock& fiber) {
  WorkerSection section;
  if (fiber.heap_storage) {
    ::operator delete(fiber_storage(fiber), std::align_val_t(fiber.code->alignment));
  }
  Worker* worker = current_worker();
  BlockCache::release(&fiber, worker != nullptr ? worker->blocks() : nullptr);
}

void bind_stack(FiberBlock& fiber, Stack& stack, Worker* pinned_to) {
  stack.owner = &fiber;
  auto* frame = ::new (static_cast<void*>(stack.top)) FiberFrame;
  frame->fiber = &fiber;
  frame->stack = &stack;
  frame->pinned_to = pinned_to;
  frame->mxcsr = 0x1f80;  // the psABI's initial values
  frame->x87_control = 0x37f;
#if WEFT_TSAN
  frame->tsan_fiber = __tsan_create_fiber(0);
#endif
  fiber.rsp = arch::seed_stack(stack.top, &fiber_entry, &fiber);
  fiber.frame = frame;
}

Stack* unbind_stack(FiberBlock& fiber) {
  FiberFrame* frame = fiber.frame;
#if WEFT_TSAN
  __tsan_destroy_fiber(frame->tsan_fiber);
#endif
  Stack* stack = frame->stack;
  stack->owner = nullptr;
  fiber.frame = nullptr;
  return stack;
}

void refuse_fiber(FiberBlock& fiber, absl::Status error) {
  fiber.code->refuse(fiber_storage(fiber), absl::Status(error));
  end_with_error(fiber, &error);
}

void finish_fiber(FiberBlock& fiber, BlockCache* cache, WakeBatch& batch) {
  // The look spares the exchange that would fail: mostly somebody waits, or nobody cares.
  if (fiber.join.load() != 0 || !fiber.join.exchange_if(0, FiberBlock::kDone)) {
    const std::uint64_t state = fiber.join.lock();
    WaitList waiting(ObjectWord::waiters(state));
    while (WaitNode* node = waiting.claim_first()) batch.add(*node);
    // One store says done, when the list is empty: a joiner that comes now finds no list to join.
    fiber.join.unlock((state & FiberBlock::kDetached) | FiberBlock::kDone);
  }
  fiber.group->ended(fiber, batch);
  drop_reference(fiber, cache);
}

void drop_reference(FiberBlock& fiber, BlockCache* cache) {
  // [life] What others did with the block comes before its reuse. Who holds the last reference is alone,
  // so nobody can add to it, and a load (acquire) will do; else an RMW (acq_rel).
  if (fiber.references.load(std::memory_order_acquire) != 1 &&
      fiber.references.fetch_sub(1, std::memory_order_acq_rel) != 1) {
    return;
  }
  const auto ending = static_cast<Ending>(fiber.ending);
  if (ending == Ending::kThrew) {
    std::destroy_at(&exception_in(fiber));
  } else if (ending == Ending::kReturned && fiber.code->destroy_result == nullptr) {
    fiber.code->destroy_plain_result(fiber_storage(fiber));
  }
  if (fiber.heap_storage) {
    ::operator delete(fiber_storage(fiber), std::align_val_t(fiber.code->alignment));
  }
  if (fiber.claim.free()) BlockCache::release(&fiber, cache);
}

void drop_handle(FiberBlock& fiber) {
  if (fiber.code->destroy_result != nullptr) {
    const std::uint64_t state = fiber.join.lock();
    const bool sealed = static_cast<Ending>(fiber.ending) == Ending::kReturned;
    fiber.join.unlock(state | FiberBlock::kDetached);
    if (sealed) fiber.code->destroy_result(fiber_storage(fiber));
  }
  WorkerSection section;
  Worker* worker = current_worker();
  drop_reference(fiber, worker != nullptr ? worker->blocks() : nullptr);
}

// ---- The switch

WEFT_AROUND_SWITCH Worker* switch_to_worker(FiberBlock& fiber, Worker& worker) {
#if WEFT_ASAN
  const StackBounds& own = worker.hooks().own;
  FiberFrame* const frame = fiber.frame;
  // Without a place for it the fake stack of a fiber that ends is freed.
  __sanitizer_start_switch_fiber(frame->leaves_for_good ? nullptr : &frame->asan_fake_stack,
                                 own.low, own.bytes);
#endif
#if WEFT_TSAN
  happens_before(&fiber);
  __tsan_switch_to_fiber(worker.hooks().tsan_context, __tsan_switch_to_fiber_no_sync);
#endif
  auto* resumed_by = static_cast<Worker*>(weft_leave(&fiber, &worker));
#if WEFT_ASAN
  __sanitizer_finish_switch_fiber(frame->asan_fake_stack, nullptr, nullptr);
#endif
  happens_after(&fiber);
  return resumed_by;
}

void save_fp_control(FiberBlock& fiber) {
  FiberFrame& frame = *fiber.frame;
  asm volatile("stmxcsr %0\n\tfnstcw %1" : "=m"(frame.mxcsr), "=m"(frame.x87_control));
  const std::uint32_t mxcsr = 0x1f80;
  const std::uint16_t x87_control = 0x37f;
  asm volatile("ldmxcsr %0\n\tfldcw %1" : : "m"(mxcsr), "m"(x87_control));
}

void restore_fp_control(FiberBlock& fiber) {
  const FiberFrame& frame = *fiber.frame;
  asm volatile("ldmxcsr %0\n\tfldcw %1" : : "m"(frame.mxcsr), "m"(frame.x87_control));
}

// ---- The current worker

extern "C" {
// Read by the assembly below, and by debuggers, under this name.
__attribute__((used, visibility("hidden"),
               tls_model("initial-exec"))) thread_local Worker* weft_worker = nullptr;
}

// By hand, so that no compiler keeps the address of the variable over a switch: it takes thread-local
// addresses for constant in a function, and a fiber may be on another thread after each call.
Worker* current_worker() {
  Worker* worker;
  asm volatile("movq weft_worker@gottpoff(%%rip), %0\n\tmovq %%fs:(%0), %0" : "=r"(worker));
  return worker;
}

FiberBlock* current_fiber() {
  WorkerSection section;
  Worker* worker = current_worker();
  return worker == nullptr ? nullptr : worker->current();
}

void set_current_worker(Worker* worker) { weft_worker = worker; }

}  // namespace weft::sched

// The loop's question: who runs next. See arch/x86_64/switch.h.
extern "C" WEFT_AROUND_SWITCH void* weft_next(void* pointer) {
  auto& worker = *static_cast<weft::sched::Worker*>(pointer);
#if WEFT_ASAN || WEFT_TSAN
  if (weft::sched::FiberBlock* left = worker.current()) {
#if WEFT_ASAN
    __sanitizer_finish_switch_fiber(worker.hooks().fake_stack, nullptr, nullptr);
#endif
    weft::sched::happens_after(left);
  }
#endif
  weft::sched::FiberBlock* fiber = worker.next();
#if WEFT_ASAN || WEFT_TSAN
  if (fiber != nullptr) {
#if WEFT_ASAN
    const weft::sched::Stack& stack = *fiber->frame->stack;
    __sanitizer_start_switch_fiber(&worker.hooks().fake_stack, stack.low,
                                   static_cast<std::size_t>(stack.top - stack.low));
#endif
#if WEFT_TSAN
    __tsan_switch_to_fiber(fiber->frame->tsan_fiber, __tsan_switch_to_fiber_no_sync);
#endif
  }
#endif
  return fiber;
}
