// The atomic that code under the controlled scheduler is compiled with, in place of std::atomic.
//
//   model::Atomic<std::uint32_t> head{0};         // through base::Atomic, with WEFT_MODEL defined
//   head.store(1, std::memory_order_release);     // before this, another model thread may run
//
// Requires: one kernel thread explores. Memory orders are written out (there are no defaults here,
// so a forgotten one does not compile); they are otherwise ignored: what is explored is the
// interleavings of a sequentially consistent machine. Weak orders: relacy_atomic.h.
// Promises: the same size and layout as T. Outside of an exploration an operation just happens.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace weft::model {

enum class Operation : std::uint8_t {
  kLoad,
  kStore,
  kExchange,
  kCompareExchange,
  kCompareExchangeFailed,
  kFetchAdd,
  kFetchSub,
  kFetchOr,
  kFetchAnd,
  kFetchXor,
  kSpin,
  kSleep,
  kWait,
  kPost,
  kChoose,
};

// A value as the trace shows it. Pointers are shown by number: their bits differ from run to run.
struct Word {
  std::uint64_t bits;
  bool is_pointer;
};

// The words that every operation looks at.
struct Hooks {
  bool exploring = false;  // model threads are running, and one of them is the caller
  bool tracing = false;    // this schedule is run again to be shown
  // Threads that spin and need not be looked at again before somebody else has written something.
  std::uint32_t spinning = 0;
};
inline Hooks hooks;

// Lets another model thread run before the caller touches `address`.
void switch_point(const void* address);

// One in so many weak compare-exchanges fails for no reason, as the standard allows.
bool fails_spuriously();

void record(Operation operation, const void* address, Word before, Word after);

// Called in a loop that waits for another thread: the others go first.
void spin_hint();

template <class T>
class Atomic {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);

 public:
  using value_type = T;
  static constexpr bool is_always_lock_free = true;

  constexpr Atomic() noexcept : value_() {}
  constexpr Atomic(T value) noexcept : value_(value) {}  // NOLINT(google-explicit-constructor)
  Atomic(const Atomic&) = delete;
  Atomic& operator=(const Atomic&) = delete;

  T load(std::memory_order) const noexcept {
    before();
    note(Operation::kLoad, value_, value_);
    return value_;
  }

  void store(T value, std::memory_order) noexcept {
    before();
    write(Operation::kStore, value);
  }

  T exchange(T value, std::memory_order) noexcept {
    before();
    return write(Operation::kExchange, value);
  }

  bool compare_exchange_strong(T& expected, T desired, std::memory_order) noexcept {
    before();
    return compare_exchange(expected, desired);
  }

  bool compare_exchange_strong(T& expected, T desired, std::memory_order success,
                               std::memory_order) noexcept {
    return compare_exchange_strong(expected, desired, success);
  }

  bool compare_exchange_weak(T& expected, T desired, std::memory_order) noexcept {
    before();
    if (hooks.exploring && fails_spuriously()) {
      note(Operation::kCompareExchangeFailed, value_, desired);
      expected = value_;
      return false;
    }
    return compare_exchange(expected, desired);
  }

  bool compare_exchange_weak(T& expected, T desired, std::memory_order success,
                             std::memory_order) noexcept {
    return compare_exchange_weak(expected, desired, success);
  }

  // What a pointer is moved by, and what anything else is changed by.
  using Operand = std::conditional_t<std::is_pointer_v<T>, std::ptrdiff_t, T>;

  T fetch_add(Operand operand, std::memory_order) noexcept {
    before();
    return write(Operation::kFetchAdd, static_cast<T>(value_ + operand));
  }

  T fetch_sub(Operand operand, std::memory_order) noexcept {
    before();
    return write(Operation::kFetchSub, static_cast<T>(value_ - operand));
  }

  T fetch_or(T operand, std::memory_order) noexcept {
    before();
    return write(Operation::kFetchOr, static_cast<T>(value_ | operand));
  }

  T fetch_and(T operand, std::memory_order) noexcept {
    before();
    return write(Operation::kFetchAnd, static_cast<T>(value_ & operand));
  }

  T fetch_xor(T operand, std::memory_order) noexcept {
    before();
    return write(Operation::kFetchXor, static_cast<T>(value_ ^ operand));
  }

 private:
  void before() const noexcept {
    if (hooks.exploring) switch_point(this);
  }

  T write(Operation operation, T value) noexcept {
    const T old = value_;
    value_ = value;
    hooks.spinning = 0;
    note(operation, old, value);
    return old;
  }

  bool compare_exchange(T& expected, T desired) noexcept {
    if (std::memcmp(&value_, &expected, sizeof(T)) == 0) {
      write(Operation::kCompareExchange, desired);
      return true;
    }
    note(Operation::kCompareExchangeFailed, value_, desired);
    expected = value_;
    return false;
  }

  void note(Operation operation, T old, T value) const noexcept {
    if (hooks.tracing) record(operation, this, word(old), word(value));
  }

  static Word word(T value) noexcept {
    Word word{0, std::is_pointer_v<T>};
    std::memcpy(&word.bits, &value, sizeof value);
    return word;
  }

  T value_;
};

}  // namespace weft::model
