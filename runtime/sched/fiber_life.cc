#include "runtime/sched/fiber_life.h"

#include <exception>
#include <memory>
#include <new>
#include <utility>

#include <cxxabi.h>

#include "arch/x86_64/switch.h"
#include "runtime/base/check.h"
#include "runtime/base/plant.h"
#include "runtime/sched/core.h"
#include "runtime/sched/ending.h"
#include "runtime/sched/group.h"
#include "runtime/sched/status.h"
#include "runtime/sched/worker.h"

namespace weft::sched {
namespace {

void end_with_error(FiberBlock& fiber, const absl::Status* error) {
  if (error != nullptr) fiber.group->record(fiber, error, nullptr);
  seal(fiber, Ending::kReturned);
}

// There was no memory to keep an exception in: that much is said of it.
void end_without_exception(FiberBlock& fiber) {
  const absl::Status error(absl::StatusCode::kResourceExhausted, "");
  fiber.code->fail(fiber_storage(fiber), absl::Status(error));
  end_with_error(fiber, &error);
}

void run_closure(FiberBlock& fiber) {
  std::shared_ptr<ChildException> thrown;
  try {
    end_with_error(fiber, fiber.code->run(fiber_storage(fiber)));
    return;
  } catch (abi::__forced_unwind&) {
    throw;  // pthread_exit and pthread_cancel must not stop here
  } catch (...) {
    try {
      thrown = std::make_shared<ChildException>();
      thrown->pointer = std::current_exception();
    } catch (const std::bad_alloc&) {
      if constexpr (base::planted(76)) std::terminate();
      return end_without_exception(fiber);
    }
  }
  ::new (fiber_storage(fiber)) std::shared_ptr<ChildException>(thrown);
  fiber.group->record(fiber, nullptr, std::move(thrown));
  seal(fiber, Ending::kThrew);
}

absl::Status why_refused(FiberBlock& fiber) {
  if (fiber.frame->refusal == Refusal::kNoStack) {
    return status_or_bare(absl::StatusCode::kResourceExhausted,
                          [&] { return fiber.group->core()->stacks().shortage(); });
  }
  return status_or_bare(absl::StatusCode::kInvalidArgument, [&] {
    return validate_stack_bytes(BlockCache::extras_of(&fiber)->stack_bytes);
  });
}

void fiber_main(FiberBlock& fiber) {
  if (fiber.frame->refusal != Refusal::kNone) {
    refuse_fiber(fiber, why_refused(fiber));
  } else if (fiber.claim.asked(kCancel)) {
    refuse_fiber(fiber, status_of(report_interruption(fiber)));
  } else {
    run_closure(fiber);
  }
}

}  // namespace

WEFT_AROUND_SWITCH void* fiber_entry(void* argument, void* by) {
  auto& fiber = *static_cast<FiberBlock*>(argument);
  auto* worker = static_cast<Worker*>(by);
#if WEFT_ASAN
  StackBounds& own = worker->hooks().own;
  __sanitizer_finish_switch_fiber(nullptr, &own.low, &own.bytes);
#endif
  happens_after(&fiber);
  worker->clear_thread_state();
  fiber_main(fiber);
  worker = Worker::end();
#if WEFT_ASAN
  // Without a place for it the fake stack is freed.
  const StackBounds& next = worker->hooks().own;
  __sanitizer_start_switch_fiber(nullptr, next.low, next.bytes);
#endif
#if WEFT_TSAN
  happens_before(&fiber);
  __tsan_switch_to_fiber(worker->hooks().tsan_context, __tsan_switch_to_fiber_no_sync);
#endif
  return worker;
}

void refuse_fiber(FiberBlock& fiber, const absl::Status& error) {
  fiber.code->refuse(fiber_storage(fiber), absl::Status(error));
  end_with_error(fiber, &error);
}

// ---- The switch

WEFT_AROUND_SWITCH Worker* switch_to_worker(FiberBlock& fiber, Worker& worker) {
#if WEFT_ASAN
  const StackBounds& own = worker.hooks().own;
  FiberFrame* const frame = fiber.frame;
  __sanitizer_start_switch_fiber(&frame->asan_fake_stack, own.low, own.bytes);
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

// ---- The current worker

extern "C" {
// Read by the assembly in worker.h, and by debuggers, under this name.
__attribute__((used, visibility("hidden"),
               tls_model("initial-exec"))) thread_local Worker* weft_worker = nullptr;
}

void set_current_worker(Worker* worker) { weft_worker = worker; }

}  // namespace weft::sched

// The loop's question: who runs next. See arch/x86_64/switch.h.
WEFT_AROUND_SWITCH WeftNext weft_next(void* pointer) {
  auto& worker = *static_cast<weft::sched::Worker*>(pointer);
#if WEFT_ASAN || WEFT_TSAN
  if (weft::sched::FiberBlock* left = worker.current()) {
#if WEFT_ASAN
    __sanitizer_finish_switch_fiber(worker.hooks().fake_stack, nullptr, nullptr);
#endif
    weft::sched::happens_after(left);
  }
#endif
  const WeftNext next = worker.next();
#if WEFT_ASAN || WEFT_TSAN
  if (next.fiber != nullptr) {
    const auto* fiber = static_cast<weft::sched::FiberBlock*>(next.fiber);
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
  return next;
}
