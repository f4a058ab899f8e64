// Scope and FiberGroup: owners of fibers. Nobody starts a fiber without saying who owns it.
//
//   std::vector<int> squares(10);
//   weft::Scope scope;                                   // after everything its fibers capture
//   for (int& x : squares) scope.spawn([&x, i = &x - squares.data()] { x = int(i * i); });
//   if (auto s = scope.join(); !s.ok()) return s;        // all have ended; the first error, if any
//
// A Scope is lexical: it also covers the waits of the fiber that made it, and ends by cancelling what
// still runs unless join() was called. A FiberGroup is the same without being lexical: a member or a
// global, used from any thread.
//
// Requires: declare a Scope after everything that its children capture by reference: a local that is
// declared after it dies first. A Scope is made and destroyed on one fiber, in strict nesting.
// Promises: neither ends before its fibers have. A child's error or exception cancels its siblings
// (unless kKeepGoing) and is what join() returns or rethrows. That a cancelled child says kCancelled is
// no error. After a cancellation every cancellation point in the scope returns kCancelled, or
// kDeadlineExceeded when its deadline did it, at once.
#pragma once

#include <weft/fiber.h>
#include <weft/internal/fiber_code.h>

#include <cstddef>
#include <string_view>
#include <type_traits>
#include <utility>

#include <absl/status/status.h>
#include <absl/time/time.h>

namespace weft::sched {
class Core;
}

namespace weft {

class Runtime;

namespace internal {
struct Prepared {            // returned in registers
  sched::FiberBlock* block;  // null: no fiber could be made
  void* storage;             // for its closure
};
}  // namespace internal

enum class OnError { kCancelSiblings, kKeepGoing };

struct ScopeOptions {
  std::string_view name = {};                         // must outlive the scope
  absl::Duration timeout = absl::InfiniteDuration();  // children inherit it
  OnError on_error = OnError::kCancelSiblings;        // what a child's error or exception does
};

class FiberGroup {
 public:
  // Of the current runtime. Without one, its fibers end unrun with kFailedPrecondition.
  // Call from: any thread. Never parks.
  explicit FiberGroup(ScopeOptions options = {}, Site site = Site::here());
  explicit FiberGroup(Runtime& runtime, ScopeOptions options = {}, Site site = Site::here());

  // cancel(), then waits for all. An error that nobody saw is logged; an exception that nobody saw goes to
  // std::terminate, unless the stack unwinds for another one: then it is logged too.
  // Call from: any thread. Parks.
  ~FiberGroup();
  FiberGroup(const FiberGroup&) = delete;
  FiberGroup& operator=(const FiberGroup&) = delete;

  // Starts a fiber that calls `f`, any move-only callable. Never fails: a fiber that could not be made
  // or that gets no stack ends unrun with kResourceExhausted, one of a cancelled group with kCancelled,
  // as its join() and the group's say. Call from: any thread. Never parks.
  template <class F, class T = std::invoke_result_t<F>>
  Fiber<T> spawn(F&& f, SpawnOptions options = {}, Site site = Site::here()) {
    using Closure = std::decay_t<F>;
    static constexpr const internal::FiberCode& kCode = internal::FiberCodeFor<Closure, T>::kCode;
    internal::Prepared made = prepare(kCode, options, site);
    if (made.block == nullptr) return Fiber<T>(unmade());
    if constexpr (std::is_nothrow_constructible_v<Closure, F>) {
      ::new (made.storage) Closure(std::forward<F>(f));
    } else {
      try {
        ::new (made.storage) Closure(std::forward<F>(f));
      } catch (...) {
        abandon(*made.block);
        throw;
      }
    }
    launch(*made.block);
    return Fiber<T>({made.block});
  }

  // Waits until all have ended; returns the first error (the others as a payload), rethrows the first
  // exception. Takes no notice of the group's own cancellation. Interrupted from outside, a Scope
  // cancels its fibers, goes on waiting for them and then reports; a FiberGroup returns the
  // interruption and lives on. One of its own fibers gets kFailedPrecondition.
  // Call from: any thread. Parks.
  [[nodiscard]] absl::Status join();

  // Call from: any thread. Never parks.
  void cancel();
  bool cancelled() const;
  std::size_t size() const;

 protected:
  struct Lexical {};
  FiberGroup(Lexical, ScopeOptions options, Site site);

 private:
  internal::Prepared prepare(const internal::FiberCode& code, const SpawnOptions& options,
                             Site site);
  internal::FiberHandle unmade() const;
  void launch(sched::FiberBlock& fiber);
  void abandon(sched::FiberBlock& fiber);

  friend class sched::Core;
  struct Root {};
  FiberGroup(Root, sched::Core& core);  // a runtime's own

  alignas(8) mutable std::byte state_[320];
};

class Scope : public FiberGroup {
 public:
  // Call from: a fiber; anywhere else it says so and ends the process.
  explicit Scope(ScopeOptions options = {}, Site site = Site::here())
      : FiberGroup(Lexical{}, options, site) {}
};

}  // namespace weft
