// Fiber: the handle of a spawned fiber; this_fiber: what a fiber can do about itself.
//
//   weft::Scope scope;
//   weft::Fiber<int> answer = scope.spawn([] { return 6 * 7; });
//   absl::StatusOr<int> value = answer.join();        // 42; an exception of the fiber is rethrown here
//
// The scope owns the fiber. Dropping the handle is fine: its result is destroyed, its error is still the
// scope's.
//
// Requires: one join for each handle.
// Promises: what the fiber did is visible after join() and wait(). Handles may outlive their scope and
// their runtime: everything has ended then.
#pragma once

#include <weft/internal/fiber_code.h>
#include <weft/status.h>

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

#include <absl/status/status.h>

namespace weft {

using FiberId = std::uint64_t;

// Where something was spawned, for reports.
struct Site {
  const char* file;
  unsigned line;
  static constexpr Site here(const char* file = __builtin_FILE(),
                             unsigned line = __builtin_LINE()) {
    return {file, line};
  }
};

struct SpawnOptions {
  std::string_view name = {};  // copied; the first 31 bytes
  // A power of two from 16 KiB up; 0: the runtime's default. With a bad one the fiber ends unrun with
  // kInvalidArgument. A quarter of it, at most 64 KiB, is the guard. Calls into libc take up to 13 KiB of the
  // rest (printf of a floating-point number): 64 KiB at least for fibers that make them. A stack is not
  // cleared from fiber to fiber: who keeps secrets there wipes them.
  std::size_t stack_size = 0;
  bool pinned = false;               // stays on the worker that first runs it
  bool preserve_fp_control = false;  // mxcsr and the x87 control word are its own
};

template <class T>
class Fiber {
 public:
  Fiber(Fiber&& other) noexcept : handle_(std::exchange(other.handle_, {})) {}
  Fiber& operator=(Fiber&& other) noexcept {
    if (this != &other) {
      handle_.drop();
      handle_ = std::exchange(other.handle_, {});
    }
    return *this;
  }
  ~Fiber() { handle_.drop(); }

  // The fiber's value or error; rethrows its exception. Interrupted, it returns the interruption, and
  // the handle can be joined again. A second join is kFailedPrecondition.
  // Call from: any thread. Parks.
  [[nodiscard]] Joined<T> join() {
    absl::Status waited = handle_.wait();
    if (!waited.ok()) return waited;
    const Fiber ended = std::move(*this);  // dropped even when the exception comes out
    return std::move(*static_cast<Joined<T>*>(ended.handle_.result()));
  }

  // Waits for the end alone; any number of waiters. Call from: any thread. Parks.
  [[nodiscard]] absl::Status wait() const { return handle_.wait(); }

  // Asks the fiber to end: its waits return kCancelled from now on. Call from: any thread. Never parks.
  void cancel() { handle_.cancel(); }
  // Call from: any thread. Never parks.
  bool done() const { return handle_.done(); }
  FiberId id() const { return handle_.id(); }

 private:
  friend class FiberGroup;
  explicit Fiber(internal::FiberHandle handle) : handle_(handle) {}
  internal::FiberHandle handle_;
};

namespace this_fiber {

// Lets other fibers run. Call from: a fiber; anywhere else it does nothing. Parks, and returns.
void yield();
// As yield(), once the fiber has used up its share of the turn; before that a load and a comparison.
void maybe_yield();
// maybe_yield(), then what interrupts the fiber, if anything does. Call from: a fiber.
[[nodiscard]] absl::Status checkpoint();
// Whether the next cancellation point would report an interruption. One load. Call from: a fiber.
bool cancelled();
// 0 outside a fiber. Call from: any thread. Never parks.
FiberId id();
// How many bytes the calling fiber may still use of its stack; 0 outside a fiber.
std::size_t stack_remaining();

}  // namespace this_fiber
}  // namespace weft
