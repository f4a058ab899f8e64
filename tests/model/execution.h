// One schedule while it runs: model threads on stacks of their own, of which one moves at a time.
//
// The body runs on the test's own stack and is the worker of arch/x86_64/switch.h: run() enters the
// loop, which returns when all model threads have ended or one has failed. A model thread that must
// give way names its successor in next_ and leaves; one that goes on does not switch at all.
//
// A thread is in runnable_ or sleeps; it sleeps on an address, on a predicate, or until quiet. All
// bit sets are by index. Stacks are kept for the next schedule; those of a failed one are never
// used again, because what is on them was not destroyed.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tests/model/chooser.h"
#include "tests/model/explore.h"
#include "tests/model/model_stack.h"
#include "tests/model/trace.h"

namespace weft::model {

// Ends the body of a schedule that failed.
struct Failure {
  std::string message;
};

class Execution {
 public:
  // The one that runs, or null: there is no exploration.
  static Execution* current();

  explicit Execution(const Options& options);
  ~Execution();
  Execution(const Execution&) = delete;
  Execution& operator=(const Execution&) = delete;

  // Call from: explore().
  void begin(std::uint64_t index, bool tracing);
  Chooser& chooser() { return chooser_; }
  Trace& trace() { return trace_; }
  std::uint64_t steps() const { return steps_; }

  // Call from: the body.
  void add(const char* name, std::function<void()> function);
  void run();

  // Call from: a model thread.
  int running_index() const { return current_; }
  void step(const void* address);
  void spin();
  void sleep_on(const void* address, const char* what);
  void wake_sleepers(const void* address);
  void sleep_until(bool (*predicate)(void*), void* context);
  void sleep_until_quiet();
  bool holds(bool (*predicate)(void*), void* context);

  // Call from: a model thread, or the body.
  [[noreturn]] void fail(std::string message);
  void record(Operation operation, const void* address, Word before, Word after);
  void retire(const void* address, std::size_t size_bytes, const char* message);

  // For weft_next.
  void* next() const { return next_; }

 private:
  struct Thread {
    void* rsp;  // belongs to arch/x86_64/switch.h
    ModelStack stack;
    int index;
    const char* name;
    std::function<void()> function;
    const void* sleeps_on;
    const char* sleeps_for;  // for the report of a deadlock
    bool (*predicate)(void*);
    void* context;
  };
  struct Retired {
    std::uintptr_t begin;
    std::size_t size_bytes;
    const char* message;
  };

  static Thread* create_thread();
  [[noreturn]] static void* thread_main(void* thread, void* execution);
  Thread& running() { return *threads_[static_cast<std::size_t>(current_)]; }
  std::uint32_t running_bit() const { return std::uint32_t{1} << current_; }
  void reschedule();
  void sleep(const char* what);
  void give_way();
  void end_thread();
  void wake_satisfied();
  void switch_to(int index);
  void leave_to(Thread* next);
  void check_retired(const void* address);
  std::string deadlock_message() const;
  void abandon_stacks();

  [[maybe_unused]] void* rsp_ = nullptr;  // belongs to arch/x86_64/switch.h; must be first
  Thread* next_ = nullptr;
  int current_ = -1;  // -1: the body
  std::uint32_t runnable_ = 0;
  std::uint32_t live_ = 0;
  std::uint32_t on_predicate_ = 0;
  std::uint32_t until_quiet_ = 0;
  std::uint32_t max_steps_;
  std::uint32_t schedule_steps_ = 0;
  int count_ = 0;
  bool failed_ = false;
  std::uint64_t steps_ = 0;
  Chooser chooser_;
  Trace trace_;
  ModelStack own_stack_;
  std::array<Thread*, kThreadsMax> threads_{};
  std::vector<Retired> retired_;
  std::string message_;
};

}  // namespace weft::model
