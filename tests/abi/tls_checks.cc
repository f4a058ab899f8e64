// What compilers make of thread-local things around a park, for tls_matrix.py, which compiles it in every
// way: with the runtime, whose own must always be fresh, and naively, which must show up as stale.
//
// A naive function reads something of its thread, moves to another kernel thread, and reads it again as
// any C++ function would. The truth comes from functions into which no compiler may look.
#include <weft/runtime.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>

#include <pthread.h>
#include <sys/syscall.h>

#include "arch/x86_64/syscall.h"
#include "runtime/sched/worker.h"

#ifdef __clang__
#define OPAQUE [[gnu::noinline]] __attribute__((optnone))
#else
#define OPAQUE [[gnu::noinline, gnu::noipa]]
#endif

using namespace weft;

namespace {

constexpr int kMoves = 100;
constexpr int kWorkers = 2;

thread_local long number = 0;

OPAQUE long kernel_thread() { return arch::syscall(SYS_gettid); }
OPAQUE long& true_number() {
  long* address = &number;
  asm volatile("" : "+r"(address));
  return *address;
}
OPAQUE int& true_errno() {
  int* address = &errno;
  asm volatile("" : "+r"(address));
  return *address;
}
OPAQUE pthread_t true_self() {
  pthread_t self = pthread_self();
  asm volatile("" : "+r"(self));
  return self;
}

// Parks until it goes on elsewhere: where wakes are shuffled, the end of a child does that.
void move_away() {
  const long before = kernel_thread();
  do {
    Scope scope;
    static_cast<void>(scope.spawn([] {}).join());
    static_cast<void>(scope.join());
  } while (kernel_thread() == before);
}

// ---- Naive reads: whether what they find after a move is of the thread that they are on

bool errno_address_is_fresh() {
  int* before = &errno;
  asm volatile("" : : "r"(before));
  move_away();
  return &errno == &true_errno();
}
bool address_is_fresh() {
  long* before = &number;
  asm volatile("" : : "r"(before));
  move_away();
  return &number == &true_number();
}
bool value_is_fresh() {
  long before = number;
  asm volatile("" : : "r"(before));
  move_away();
  return number == true_number();
}
bool self_is_fresh() {
  pthread_t before = pthread_self();
  asm volatile("" : : "r"(before));
  move_away();
  return pthread_self() == true_self();
}

struct Naive {
  const char* name;
  bool (*is_fresh)();
  int stale = 0;
};

// ---- The runtime's own reads

const char* wrong = nullptr;  // written by one fiber alone

void expect(bool fact, const char* what) {
  if (!fact && wrong == nullptr) wrong = what;
}

// Which kernel thread each worker is; the first look says so.
std::array<long, kWorkers> thread_of_worker{};

bool worker_is_fresh(sched::Worker* worker) {
  long& known = thread_of_worker[static_cast<std::size_t>(worker->index())];
  if (known == 0) known = kernel_thread();
  return known == kernel_thread();
}

void check_runtime(FiberId id) {
  sched::Worker* before = sched::current_worker();
  sched::FiberBlock* fiber = sched::current_fiber();
  expect(worker_is_fresh(before), "current_worker() is not that of this thread");
  true_errno() = 1234;
  move_away();
  sched::Worker* after = sched::current_worker();
  expect(after != before && worker_is_fresh(after), "current_worker() is stale after a move");
  expect(sched::current_fiber() == fiber && after->current() == fiber,
         "current_fiber() is another one after a move");
  expect(this_fiber::id() == id, "this_fiber::id() is another one after a move");
  expect(true_errno() == 1234, "errno did not move with its fiber");
}

}  // namespace

extern "C" __attribute__((visibility("default"))) int tls_checks() {
  Naive naive[] = {{"errno-address", &errno_address_is_fresh},
                   {"address", &address_is_fresh},
                   {"value", &value_is_fresh},
                   {"self", &self_is_fresh}};
  const int status = run(
      [&] {
        for (int i = 0; i < kWorkers; ++i) {
          true_number() = kernel_thread();
          move_away();
        }
        const FiberId id = this_fiber::id();
        for (int i = 0; i < kMoves; ++i) {
          check_runtime(id);
          for (Naive& one : naive) one.stale += one.is_fresh() ? 0 : 1;
        }
      },
      {.workers = kWorkers, .shuffle_wakes = true, .handle_signals = false});
  std::printf("stale of %d:", kMoves);
  for (const Naive& one : naive) std::printf(" %s=%d", one.name, one.stale);
  std::printf("\n%s\n", wrong != nullptr ? wrong : "runtime fresh");
  return status == 0 && wrong == nullptr ? 0 : 1;
}
