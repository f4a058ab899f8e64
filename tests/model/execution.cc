#include "tests/model/execution.h"

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include <sys/mman.h>

#include "arch/x86_64/switch.h"
#include "runtime/base/check.h"
#include "tests/model/atomic.h"

namespace weft::model {
namespace {

constexpr std::size_t kPage = 4096;

Execution* current_execution = nullptr;

bool guard_lowest_page([[maybe_unused]] void* memory) {
#if defined(WEFT_MODEL_ASAN)
  return true;
#else
  return mprotect(memory, kPage, PROT_NONE) == 0;
#endif
}

// For all explorations of the process. Never destroyed: a leak checker must still find what the
// stacks of failed schedules hold.
std::vector<void*>& idle_threads() {
  static auto* const threads = new std::vector<void*>;
  return *threads;
}
std::vector<void*>& abandoned_threads() {
  static auto* const threads = new std::vector<void*>;
  return *threads;
}

}  // namespace

ModelStack ModelStack::create() {
  ModelStack stack;
  void* memory = std::aligned_alloc(kPage, kBytes);
  if (memory == nullptr || !guard_lowest_page(memory)) {
    std::perror("model: a stack for a model thread");
    std::abort();
  }
  stack.bottom = memory;
  stack.size_bytes = kBytes;
#if defined(WEFT_MODEL_TSAN)
  stack.sanitizer_state = __tsan_create_fiber(0);
#endif
  return stack;
}

ModelStack ModelStack::of_caller() {
  ModelStack stack;
#if defined(WEFT_MODEL_TSAN)
  stack.sanitizer_state = __tsan_get_current_fiber();
#endif
  return stack;
}

Execution* Execution::current() { return current_execution; }

Execution::Execution(const Options& options)
    : max_steps_(options.max_steps), chooser_(options), own_stack_(ModelStack::of_caller()) {
  if (current_execution != nullptr) {
    std::fputs("model: an exploration inside of an exploration\n", stderr);
    std::abort();
  }
  current_execution = this;
}

Execution::~Execution() {
  for (Thread* thread : threads_) {
    if (thread == nullptr) continue;
    thread->function = nullptr;
    idle_threads().push_back(thread);
  }
  current_execution = nullptr;
  hooks = Hooks{};
}

void Execution::begin(std::uint64_t index, bool tracing) {
  count_ = 0;
  current_ = -1;
  failed_ = false;
  schedule_steps_ = 0;
  retired_.clear();
  chooser_.begin_schedule(index);
  hooks.tracing = tracing;
  if (tracing) trace_.clear();
}

void Execution::add(const char* name, std::function<void()> function) {
  if (count_ == kThreadsMax || current_ != -1) {
    std::fputs("model: too many threads, or one added by another\n", stderr);
    std::abort();
  }
  Thread*& thread = threads_[static_cast<std::size_t>(count_)];
  if (thread == nullptr) thread = create_thread();
  thread->index = count_++;
  thread->name = name;
  thread->function = std::move(function);
}

Execution::Thread* Execution::create_thread() {
  if (!idle_threads().empty()) {
    auto* thread = static_cast<Thread*>(idle_threads().back());
    idle_threads().pop_back();
    return thread;
  }
  auto* thread = new Thread{};
  thread->stack = ModelStack::create();
  thread->rsp = arch::seed_stack(thread->stack.top(), &thread_main, thread);
  return thread;
}

void Execution::run() {
  if (count_ == 0) return;
  live_ = runnable_ = (std::uint32_t{1} << count_) - 1;
  on_predicate_ = until_quiet_ = 0;
  chooser_.begin_threads(count_);
  current_ = chooser_.choose(-1, runnable_);
  next_ = &running();
  hooks.exploring = true;
  own_stack_.leave(next_->stack);
  weft_loop(this);
  own_stack_.arrive(own_stack_);
  hooks.exploring = false;
  current_ = -1;
  count_ = 0;
  if (!failed_) return;
  abandon_stacks();
  throw Failure{std::move(message_)};
}

// A thread is a loop, so that the next schedule, perhaps of another exploration, can use its stack
// as it is.
void* Execution::thread_main(void* thread, void*) {
  auto& self = *static_cast<Thread*>(thread);
  self.stack.arrive(current_execution->own_stack_);
  while (true) {
    self.function();
    current_execution->end_thread();
  }
}

void Execution::step(const void* address) {
  ++steps_;
  if (++schedule_steps_ == max_steps_) fail("too many steps: a livelock?");
  reschedule();
  if (!retired_.empty()) check_retired(address);  // others have run meanwhile
}

void Execution::spin() {
  chooser_.spin(current_);
  record(Operation::kSpin, nullptr, {}, {});
  step(nullptr);
}

void Execution::reschedule() {
  if (on_predicate_ != 0) wake_satisfied();
  const int next = chooser_.choose(current_, runnable_);
  if (next != current_) switch_to(next);
}

void Execution::sleep_on(const void* address, const char* what) {
  running().sleeps_on = address;
  sleep(what);
}

void Execution::wake_sleepers(const void* address) {
  for (int i = 0; i < count_; ++i) {
    Thread& thread = *threads_[static_cast<std::size_t>(i)];
    if ((live_ >> i & 1) == 0 || thread.sleeps_on != address) continue;
    thread.sleeps_on = nullptr;
    runnable_ |= std::uint32_t{1} << i;
  }
}

void Execution::sleep_until(bool (*predicate)(void*), void* context) {
  running().predicate = predicate;
  running().context = context;
  on_predicate_ |= running_bit();
  sleep("a condition");
}

void Execution::sleep_until_quiet() {
  until_quiet_ |= running_bit();
  sleep("quiet");
}

void Execution::sleep(const char* what) {
  running().sleeps_for = what;
  runnable_ &= ~running_bit();
  give_way();
}

// The running thread sleeps or has ended: somebody else must go on, if anybody can.
void Execution::give_way() {
  if (on_predicate_ != 0) wake_satisfied();
  if (runnable_ == 0) {
    runnable_ = std::exchange(until_quiet_, 0);
    if (runnable_ == 0) fail(deadlock_message());
  }
  const int next = chooser_.choose(current_, runnable_);
  if (next != current_) switch_to(next);
}

void Execution::end_thread() {
  live_ &= ~running_bit();
  runnable_ &= ~running_bit();
  if (live_ == 0) {
    leave_to(nullptr);
  } else {
    give_way();
  }
}

void Execution::wake_satisfied() {
  for (int i = 0; i < count_; ++i) {
    Thread& thread = *threads_[static_cast<std::size_t>(i)];
    const std::uint32_t bit = std::uint32_t{1} << i;
    if ((on_predicate_ & bit) == 0 || !holds(thread.predicate, thread.context)) continue;
    on_predicate_ &= ~bit;
    runnable_ |= bit;
  }
}

// Predicates look at atomics, and must not switch.
bool Execution::holds(bool (*predicate)(void*), void* context) {
  const bool exploring = std::exchange(hooks.exploring, false);
  const bool tracing = std::exchange(hooks.tracing, false);
  const bool result = predicate(context);
  hooks.tracing = tracing;
  hooks.exploring = exploring;
  return result;
}

void Execution::switch_to(int index) { leave_to(threads_[static_cast<std::size_t>(index)]); }

// Null: to the body.
void Execution::leave_to(Thread* next) {
  Thread& self = running();
  next_ = next;
  if (next != nullptr) current_ = next->index;
  self.stack.leave(next == nullptr ? own_stack_ : next->stack);
  weft_leave(&self, this);
  self.stack.arrive(current_execution->own_stack_);
}

void Execution::fail(std::string message) {
  if (current_ < 0) throw Failure{std::move(message)};
  hooks.exploring = false;
  failed_ = true;
  message_ = std::move(message);
  leave_to(nullptr);
  __builtin_unreachable();  // nobody resumes a thread that failed
}

void Execution::record(Operation operation, const void* address, Word before, Word after) {
  if (!hooks.tracing) return;
  trace_.add(current_ < 0 ? "(body)" : running().name, operation, address, before, after);
}

void Execution::retire(const void* address, std::size_t size_bytes, const char* message) {
  retired_.push_back({reinterpret_cast<std::uintptr_t>(address), size_bytes, message});
}

void Execution::check_retired(const void* address) {
  const auto word = reinterpret_cast<std::uintptr_t>(address);
  for (const Retired& object : retired_) {
    if (word - object.begin < object.size_bytes) fail(object.message);
  }
}

std::string Execution::deadlock_message() const {
  std::string message = "deadlock:";
  for (int i = 0; i < count_; ++i) {
    const Thread& thread = *threads_[static_cast<std::size_t>(i)];
    if ((live_ >> i & 1) == 0) continue;
    if (message.back() != ':') message += ",";
    message += std::string(" ") + thread.name + " waits for " + thread.sleeps_for;
  }
  return message;
}

void Execution::abandon_stacks() {
  for (Thread*& thread : threads_) {
    if (thread != nullptr) abandoned_threads().push_back(std::exchange(thread, nullptr));
  }
}

// What the code under the scheduler calls from an Atomic; see atomic.h.

void switch_point(const void* address) { current_execution->step(address); }

bool fails_spuriously() { return current_execution->chooser().fails_spuriously(); }

void record(Operation operation, const void* address, Word before, Word after) {
  current_execution->record(operation, address, before, after);
}

void spin_hint() {
  if (hooks.exploring) current_execution->spin();
}

}  // namespace weft::model

WeftNext weft_next(void* execution) {
  return {static_cast<weft::model::Execution*>(execution)->next(), false};
}

// Model programs are linked without runtime/base/check.cc: a failed WEFT_CHECK is a failed
// schedule.
void weft::base::check_failed(const char* file, int line, const char* condition,
                              const char* message) {
  const std::string text =
      std::string(file) + ":" + std::to_string(line) + ": " + message + " (" + condition + ")";
  if (model::Execution* execution = model::Execution::current()) execution->fail(text);
  std::fprintf(stderr, "model: outside of an exploration: %s\n", text.c_str());
  std::abort();
}
