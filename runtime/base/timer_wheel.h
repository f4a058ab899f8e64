// TimerWheel: deadlines, earliest first, cheap to set, to move and to cancel.
//
//   struct Sleep : base::TimerNode { Fiber* fiber; };
//   sleep.deadline_ns = now_ns + 1'000'000;
//   wheel.insert(&sleep);
//   while (base::TimerNode* due = wheel.pop_due(os::now_ns())) fire(static_cast<Sleep*>(due));
//   driver.sleep_until(wheel.earliest());
//
// A radix wheel, exact to the nanosecond. Level l has 64 slots and looks at digit l, base 64, of
// the deadline; a timer waits at the level of the highest digit in which its deadline differs from
// base_, the point up to which the wheel has turned. Eleven levels are the whole of 64 bits, so
// there is no horizon, and a slot of level 0 is one nanosecond, so there is no heap beside it. When
// the first slot above level 0 holds something due, the wheel turns to the slot's earliest
// deadline and empties the slot into the levels below: a timer moves mostly two or three times.
//
// Requires: whoever shares a wheel brings the lock. deadline_ns stays as it is while the node is in
//           the wheel, and the node stays where it is. Clock readings do not go backwards.
// Promises: no allocation, nothing here fails. Never early. Timers come out in the order of their
//           deadlines, equal ones in the order in which they were inserted. Any int64 is a
//           deadline; kNever is never due.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "runtime/base/check.h"

namespace weft::base {

struct TimerNode {
  TimerNode() = default;
  TimerNode(const TimerNode&) = delete;
  TimerNode& operator=(const TimerNode&) = delete;

  [[nodiscard]] bool armed() const { return next != nullptr; }

  std::int64_t deadline_ns = 0;

  // The wheel's own.
  TimerNode* previous = nullptr;
  TimerNode* next = nullptr;  // null: in no wheel
  std::uint16_t slot = 0;
};

class TimerWheel {
 public:
  static constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();

  explicit TimerWheel(std::int64_t now_ns) : base_(key_of(now_ns)) {}
  TimerWheel(const TimerWheel&) = delete;
  TimerWheel& operator=(const TimerWheel&) = delete;

  [[nodiscard]] bool empty() const { return levels_ == 0; }

  // A deadline in the past costs a walk over those that are overdue and later than it.
  void insert(TimerNode* node) {
    WEFT_DCHECK(!node->armed(), "a timer was armed twice");
    const Key key = key_of(node->deadline_ns);
    if (key < base_) {
      insert_overdue(node, key);
    } else {
      place(node, key);
    }
  }

  // Returns false, and does nothing, if the timer is not armed.
  bool remove(TimerNode* node) {
    if (!node->armed()) return false;
    unlink(node);
    return true;
  }

  // Unlinks and returns the earliest timer whose deadline is now or past; null when there is none.
  [[nodiscard]] TimerNode* pop_due(std::int64_t now_ns) {
    const Key now = key_of(now_ns < kNever ? now_ns : kNever - 1);
    while (levels_ != 0) {
      const unsigned number = first_slot();
      Slot& slot = slots_[number];
      TimerNode* const node = slot.first;
      const Key key = key_of(node->deadline_ns);
      const bool alone = node->next == node;
      if (number < kSlots || alone) {
        if (key <= now) {
          if (key > base_) base_ = key;
          unlink(node);
          return node;
        }
        if (number < kSlots) return nullptr;
      }
      if (slot.earliest > now) return nullptr;
      turn(number);
    }
    // With nothing in it the wheel may turn freely, and new timers need no more than a few levels.
    if (now > base_) base_ = now;
    return nullptr;
  }

  // Until when to sleep; kNever when empty. Not after the earliest deadline; before it only if a
  // still earlier timer was removed: whoever wakes then finds nothing due and asks again.
  [[nodiscard]] std::int64_t earliest() const {
    if (levels_ == 0) return kNever;
    const unsigned number = first_slot();
    const Slot& slot = slots_[number];
    return number < kSlots ? slot.first->deadline_ns : deadline_of(slot.earliest);
  }

 private:
  // A deadline moved into the unsigned range, in the same order.
  using Key = std::uint64_t;
  static constexpr unsigned kDigitBits = 6;
  static constexpr unsigned kSlots = 1U << kDigitBits;
  static constexpr unsigned kLevels = (64 + kDigitBits - 1) / kDigitBits;

  struct Slot {
    TimerNode* first = nullptr;  // of a ring; null when the slot is empty
    Key earliest = 0;            // never later than any deadline in the slot
  };

  static constexpr Key kSign = Key{1} << 63;
  static Key key_of(std::int64_t deadline_ns) { return static_cast<Key>(deadline_ns) ^ kSign; }
  static std::int64_t deadline_of(Key key) { return static_cast<std::int64_t>(key ^ kSign); }

  // Lower levels come before higher ones, and in each level lower slots before higher ones: all
  // that is before base_ has been popped.
  [[nodiscard]] unsigned first_slot() const {
    const auto level = static_cast<unsigned>(std::countr_zero(levels_));
    return level * kSlots + static_cast<unsigned>(std::countr_zero(occupied_[level]));
  }

  // Requires key >= base_.
  void place(TimerNode* node, Key key) {
    const auto highest_bit = static_cast<unsigned>(63 - std::countl_zero((key ^ base_) | 1));
    const unsigned level = highest_bit / kDigitBits;
    const auto digit = static_cast<unsigned>(key >> (level * kDigitBits)) % kSlots;
    Slot& slot = slots_[level * kSlots + digit];
    node->slot = static_cast<std::uint16_t>(level * kSlots + digit);
    if (slot.first == nullptr) {
      start_ring(slot, node, key);
    } else {
      link_before(slot.first, node);
      if (key < slot.earliest) slot.earliest = key;
    }
  }

  // The overdue share the slot of base_, sorted, before those whose deadline it is.
  void insert_overdue(TimerNode* node, Key key) {
    Slot& slot = slots_[base_ % kSlots];
    node->slot = static_cast<std::uint16_t>(base_ % kSlots);
    if (slot.first == nullptr) {
      start_ring(slot, node, key);
      return;
    }
    TimerNode* after = slot.first->previous;
    while (after->deadline_ns > node->deadline_ns) {
      if (after == slot.first) {
        link_before(after, node);
        slot.first = node;
        return;
      }
      after = after->previous;
    }
    link_before(after->next, node);
  }

  void start_ring(Slot& slot, TimerNode* node, Key key) {
    node->previous = node;
    node->next = node;
    slot.first = node;
    slot.earliest = key;
    occupied_[node->slot / kSlots] |= Key{1} << node->slot % kSlots;
    levels_ |= 1U << node->slot / kSlots;
  }

  static void link_before(TimerNode* next, TimerNode* node) {
    node->previous = next->previous;
    node->next = next;
    next->previous->next = node;
    next->previous = node;
  }

  void unlink(TimerNode* node) {
    Slot& slot = slots_[node->slot];
    if (node->next == node) {
      vacate(node->slot);
    } else {
      node->previous->next = node->next;
      node->next->previous = node->previous;
      if (slot.first == node) slot.first = node->next;
    }
    node->previous = nullptr;
    node->next = nullptr;
  }

  void vacate(unsigned number) {
    slots_[number].first = nullptr;
    Key& occupied = occupied_[number / kSlots];
    occupied &= ~(Key{1} << number % kSlots);
    if (occupied == 0) levels_ &= ~(1U << number / kSlots);
  }

  // Turns the wheel into its first slot, above level 0. No other timer changes its place: in the
  // digits that decide theirs the new base_ is the old one.
  void turn(unsigned number) {
    TimerNode* node = slots_[number].first;
    TimerNode* const last = node->previous;
    base_ = slots_[number].earliest;
    vacate(number);
    while (true) {
      TimerNode* const next = node->next;
      place(node, key_of(node->deadline_ns));
      if (node == last) return;
      node = next;
    }
  }

  Key base_;
  unsigned levels_ = 0;      // bit l: level l has timers
  Key occupied_[kLevels]{};  // bit i of [l]: slot i of level l has timers
  Slot slots_[kLevels * kSlots];
};

}  // namespace weft::base
