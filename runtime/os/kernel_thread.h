// Kernel threads made by raw clone that are whole libc threads as well.
//
//   os::KernelThread thread;
//   int error = thread.start([](void* worker) { static_cast<Worker*>(worker)->run(); }, &worker,
//                            {.name = "weft-0"});
//   if (error == 0 && !thread.raw_clone()) log(thread.fallback_step(), thread.fallback_errno());
//   ...
//   thread.join();
//
// Each thread runs on a guarded mapping of its own, where libc starts it and where it then moves to
// its new kernel thread (adoption.h). Where that is refused (another libc, gVisor, a seccomp
// profile) it stays a plain libc thread, on the same stack, and says why.
//
// Requires: the object outlives join(), which is called once for each successful start. Privileges
// are dropped before threads start, or after: a change meanwhile makes them start again.
// Promises: in the function everything of C++ and libc works: thread_local and its destructors,
// exceptions, locale, malloc, setuid(), dlopen, pthread_getattr_np. The kernel's thread id is final
// before it is called. SIGPIPE is blocked in it (a write to a broken pipe or socket then fails with
// EPIPE); the rest of the signal mask is the starter's. fork() in another thread waits for a start
// that has begun.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include <pthread.h>

#include "runtime/os/adoption.h"

namespace weft::os {

enum class ThreadKind : std::uint8_t {
  kRawClone,  // adopted, or plain where adoption is refused
  kPlain,     // a libc thread, for tools that follow only those (helgrind)
};

struct KernelThreadOptions {
  std::string name = "weft";            // what /proc and gdb show: its first 15 bytes
  std::size_t stack_bytes = 256 << 10;  // rounded up; libc keeps the static TLS in there, too
  ThreadKind kind = ThreadKind::kRawClone;
};

struct ThreadStart;

class KernelThread {
 public:
  using Function = void (*)(void*);

  KernelThread() = default;
  KernelThread(const KernelThread&) = delete;
  KernelThread& operator=(const KernelThread&) = delete;
  ~KernelThread();

  // Starts `function(argument)`. Returns 0, or a negative errno: then nothing was started and
  // nothing kept. -EAGAIN may also mean that something changed the credentials during each of 100
  // attempts.
  // Call from: any libc thread. Blocks, about 150 us; starts run one after the other.
  [[nodiscard]] int start(Function function, void* argument,
                          const KernelThreadOptions& options = {});

  // Starts all of them or none: no function runs before the last thread is ready. Cheaper than one
  // at a time, because they share the wait for setuid()'s lock. Otherwise as start().
  [[nodiscard]] static int start_all(std::span<const ThreadStart> starts);

  // Waits for the function's return and the thread's end, destructors of its thread_locals
  // included, and gives the stack back. Everything that the thread did is visible afterwards.
  // Call from: any libc thread but this one. Blocks.
  void join();

  // Whether it runs on a kernel thread of ours. Valid from start() on.
  // Call from: any thread. Never blocks.
  bool raw_clone() const { return raw_clone_; }

  // How often it was started anew because credentials changed during the start.
  // Call from: any thread. Never blocks.
  unsigned restarts() const { return restarts_; }

  // Which step of the adoption was refused, and why: nullptr and 0 when none was.
  // Call from: any thread. Never blocks.
  const char* fallback_step() const { return fallback_step_; }
  int fallback_errno() const { return fallback_errno_; }

 private:
  friend class StartBatch;

  int launch(const ThreadStart& start, int grace_error);
  int map_stack(std::size_t stack_bytes);
  void unmap_stack();
  int create();
  void await_past(Handover::Phase phase);
  void give(Handover::Order order);
  void run();
  void quit();
  void end();
  void main();

  Function function_ = nullptr;
  void* argument_ = nullptr;
  std::array<char, 16> name_{};
  std::byte* mapping_ = nullptr;  // the guard, then the stack
  std::size_t stack_bytes_ = 0;
  pthread_t thread_{};
  Handover handover_;
  ThreadKind kind_ = ThreadKind::kRawClone;
  unsigned restarts_ = 0;
  // The thread writes these three before kReady, the starter reads them after it.
  bool raw_clone_ = false;
  const char* fallback_step_ = nullptr;
  int fallback_errno_ = 0;
};

struct ThreadStart {
  KernelThread* thread;
  KernelThread::Function function;
  void* argument;
  KernelThreadOptions options{};
};

}  // namespace weft::os
