// What the templates of <weft/fiber.h> and <weft/scope.h> tell the scheduler about a closure: how to call
// and to destroy it, and what its result is. No user names anything here.
#pragma once

#include <weft/status.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

namespace weft::sched {
struct FiberBlock;
}

namespace weft::internal {

// One per closure type. Closure and result use the same storage, one after the other.
struct FiberCode {
  std::size_t bytes;
  std::size_t alignment;
  // Calls the closure, destroys it and leaves the result in its place. Returns the error in the result,
  // or null. When the closure throws it is destroyed and there is no result.
  const absl::Status* (*run)(void* storage);
  // Destroys the closure without a call and leaves the error as the result.
  void (*refuse)(void* storage, absl::Status&& error);
  // Null when there is nothing that a destructor of a user's type would do.
  void (*destroy_result)(void* storage);
  void (*destroy_plain_result)(void* storage);  // when destroy_result is null
  // Leaves the error as the result where there is neither closure nor result.
  void (*fail)(void* storage, absl::Status&& error) = nullptr;
};

// A fiber that was never made has no block; its join says why.
struct FiberHandle {
  sched::FiberBlock* block = nullptr;
  absl::StatusCode missing = absl::StatusCode::kFailedPrecondition;

  absl::Status wait() const;
  // Of an ended fiber; rethrows its exception.
  void* result() const;
  void drop();
  void cancel() const;
  bool done() const;
  unsigned long long id() const;
};

inline const absl::Status& status_in(const absl::Status& status) { return status; }
template <class U>
const absl::Status& status_in(const absl::StatusOr<U>& result) {
  return result.status();
}

template <class F, class T>
struct FiberCodeFor {
  using Result = Joined<T>;

  struct Destroy {
    void operator()(F* closure) const { closure->~F(); }
  };

  // Calls the closure and destroys it.
  static T call(F* closure) {
    std::unique_ptr<F, Destroy> owned(closure);
    return std::move(*closure)();
  }
  static const absl::Status* run(void* storage) {
    auto* closure = static_cast<F*>(storage);
    if constexpr (std::is_void_v<T>) {
      call(closure);
      ::new (storage) Result();
      return nullptr;
    } else {
      Result value(call(closure));
      auto* kept = ::new (storage) Result(std::move(value));
      return status_in(*kept).ok() ? nullptr : &status_in(*kept);
    }
  }
  static void refuse(void* storage, absl::Status&& error) {
    static_cast<F*>(storage)->~F();
    fail(storage, std::move(error));
  }
  static void fail(void* storage, absl::Status&& error) {
    ::new (storage) Result(std::move(error));
  }
  static void destroy(void* storage) { static_cast<Result*>(storage)->~Result(); }

  // The destructors of void, Status and of plain values run anywhere; another one may park.
  static constexpr bool kPlain =
      std::is_void_v<T> || std::is_same_v<T, absl::Status> || std::is_trivially_destructible_v<T>;

  static constexpr FiberCode kCode{
      std::max({sizeof(F), sizeof(Result), 2 * sizeof(void*)}),
      std::max({alignof(F), alignof(Result), alignof(void*)}),
      &run,
      &refuse,
      kPlain ? nullptr : &destroy,
      &destroy,
      &fail,
  };
};

}  // namespace weft::internal
