// The atomic for the race detector relacy, which explores weak memory: what a load may see besides the
// newest value, and whether what it sees orders the plain data behind it.
//
//   class Test : public rl::test_suite<Test, 2> { base::SpawnDeque<Element> deque_{2, 0}; ... };
//   rl::simulate<Test>(params);                       // with WEFT_RELACY defined
//
// Requires: relacy-dev. Atomics are made and used inside of a relacy test only. Plain data that a protocol
// hands over is rl::var<T>, or nobody looks whether it was handed over.
// Promises: relacy's macros (new, free, errno, memory_order_relaxed and others) end with this header, so
// that the code under test and the standard headers mean what they say. RL_ASSERT stays.
#pragma once

// What relacy replaces by macros must have been read before.
#include <atomic>
#include <cassert>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <string>
#include <type_traits>

#pragma push_macro("EINVAL")
#pragma push_macro("ETIMEDOUT")
#pragma push_macro("EBUSY")
#pragma push_macro("EINTR")
#pragma push_macro("EAGAIN")
#pragma push_macro("EWOULDBLOCK")

#include <relacy/relacy.hpp>

#pragma pop_macro("EINVAL")
#pragma pop_macro("ETIMEDOUT")
#pragma pop_macro("EBUSY")
#pragma pop_macro("EINTR")
#pragma pop_macro("EAGAIN")
#pragma pop_macro("EWOULDBLOCK")

#include "tests/model/relacy_weaken.h"

#undef new
#undef delete
#undef malloc
#undef calloc
#undef realloc
#undef free
#undef assert
#undef errno
#undef memory_order_relaxed
#undef memory_order_consume
#undef memory_order_acquire
#undef memory_order_release
#undef memory_order_acq_rel
#undef memory_order_seq_cst
#define errno (*__errno_location())

namespace weft::relacy {

// Where the code under test stands, and with which order; weaker if that was asked for.
class Place {
 public:
  Place(std::memory_order order, const char* file = __builtin_FILE(),  // NOLINT
        unsigned line = __builtin_LINE(), const char* function = __builtin_FUNCTION())
      : info(function, file, line), written_(from(order)) {}

  rl::memory_order order() const { return weaker(written_, Weakening::Role::kSuccess); }
  // As the second order of a compare-exchange. Relacy wants it to be no stronger than the first.
  rl::memory_order failure(const Place& success) const {
    const rl::memory_order order = weaker(written_, Weakening::Role::kFailure);
    return order == rl::mo_relaxed ? order : success.order_of_failure();
  }
  // What a failed compare-exchange has when only one order is written.
  rl::memory_order order_of_failure() const {
    const rl::memory_order success = order();
    if (success == rl::mo_release) return rl::mo_relaxed;
    return success == rl::mo_acq_rel ? rl::mo_acquire : success;
  }

  rl::debug_info info;

 private:
  static rl::memory_order from(std::memory_order order) {
    switch (order) {
      case std::memory_order_relaxed:
        return rl::mo_relaxed;
      case std::memory_order_consume:
      case std::memory_order_acquire:
        return rl::mo_acquire;
      case std::memory_order_release:
        return rl::mo_release;
      case std::memory_order_acq_rel:
        return rl::mo_acq_rel;
      case std::memory_order_seq_cst:
        return rl::mo_seq_cst;
    }
    __builtin_unreachable();
  }

  rl::memory_order weaker(rl::memory_order order, Weakening::Role role) const {
    return weakening.of(order, info.file_, info.line_, role);
  }

  rl::memory_order written_;
};

template <class T>
class Atomic {
 public:
  using value_type = T;
  using Operand = std::conditional_t<std::is_pointer_v<T>, std::ptrdiff_t, T>;

  Atomic() : value_(T()) {}
  Atomic(T value) : value_(value) {}  // NOLINT(google-explicit-constructor)

  T load(Place place) const { return value_.load(place.order(), place.info); }
  void store(T value, Place place) { value_.store(value, place.order(), place.info); }
  T exchange(T value, Place place) { return value_.exchange(value, place.order(), place.info); }

  bool compare_exchange_strong(T& expected, T desired, Place success, Place failure) {
    return value_.compare_exchange(rl::bool_t<false>(), expected, desired, success.order(),
                                   failure.failure(success), success.info);
  }
  bool compare_exchange_strong(T& expected, T desired, Place place) {
    return value_.compare_exchange(rl::bool_t<false>(), expected, desired, place.order(),
                                   place.order_of_failure(), place.info);
  }
  bool compare_exchange_weak(T& expected, T desired, Place success, Place failure) {
    return value_.compare_exchange(rl::bool_t<true>(), expected, desired, success.order(),
                                   failure.failure(success), success.info);
  }
  bool compare_exchange_weak(T& expected, T desired, Place place) {
    return value_.compare_exchange(rl::bool_t<true>(), expected, desired, place.order(),
                                   place.order_of_failure(), place.info);
  }

  T fetch_add(Operand operand, Place place) {
    return value_.fetch_add(operand, place.order(), place.info);
  }
  T fetch_sub(Operand operand, Place place) {
    return value_.fetch_sub(operand, place.order(), place.info);
  }
  T fetch_or(T operand, Place place) { return value_.fetch_or(operand, place.order(), place.info); }
  T fetch_and(T operand, Place place) {
    return value_.fetch_and(operand, place.order(), place.info);
  }
  T fetch_xor(T operand, Place place) {
    return value_.fetch_xor(operand, place.order(), place.info);
  }

 private:
  rl::atomic<T> value_;
};

inline void spin_hint() { rl::yield(1, rl::debug_info()); }

}  // namespace weft::relacy
