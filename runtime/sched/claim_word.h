// ClaimWord: one atomic word per fiber that decides, once per wait, why the fiber resumes.
//
//   ClaimWord::Park park = word.park(kCancel);               // the fiber, in its commit step
//   if (word.claim(epoch)) make_ready(fiber);                // a waker: at most one wins
//   switch (word.request(kCancel).outcome) { ... }           // a canceller
//
// The word holds the fiber's state, the epoch of its wait, what others ask of it (requests), which of
// those requests may end the present wait (accepts), and, while it waits for an operation, the ring that
// has the operation.
//
//   state      on                              stack                        who moves it on
//   kFree      its slab's free list            none                         spawn: kRunnable
//   kRunnable  a worker; or exactly one of     none until it first runs;    itself: kParked, in its commit
//              unstarted deque, next-slot,     then its own, and the        step; or, when it has ended,
//              ready and pinned queue,         worker's only while it       fiber or handle, the last:
//              inbox, injection queue;         runs                         kFree
//              or, ended, its group
//   kParked    one object's waiting list, or   its own, at rest             the first that changes this
//              one operation                                                word: kRunnable
//
// New, ready, running and ended fibers share a state: only parked ones are moved on by others, and what
// tells the rest apart (a stack, a queue, the join word) is elsewhere. So starting a fiber, taking it from
// a queue, and a yield leave the word alone.
//
// Requires: the block of the fiber is type-stable memory; every change of the word goes through here.
// Promises: a wait ends once. A request that came before the park is found by the park; one that comes
// after ends the wait; a wake that claimed first wins, and the request stays for the next wait.
// Protocol: checked in tests/model over these very functions. [claim]
#pragma once

#include <cstdint>

#include "runtime/base/atomic.h"
#include "runtime/base/plant.h"

namespace weft::sched {

enum class FiberState : std::uint8_t { kFree, kRunnable, kParked };

// What others may ask of a fiber. A set of them is an integer.
enum Request : unsigned {
  kCancel = 1,  // a scope or a deadline: kept until the level that asked is left
  kDrain = 2,   // the runtime drains: kept for good
  kClose = 4,   // the stream it waits on is being closed by another fiber
};

class ClaimWord {
 public:
  // A decoded word.
  struct View {
    std::uint64_t bits;

    FiberState state() const { return static_cast<FiberState>(bits & 7); }
    unsigned requests() const { return (bits >> 3) & 7; }
    unsigned accepts() const { return (bits >> 6) & 7; }
    bool queued() const { return bits & kQueuedBit; }
    bool in_ring() const { return bits & kInRingBit; }
    bool ending() const { return bits & kEndingBit; }
    unsigned ring() const { return (bits >> kRingShift) & 0x3ff; }
    unsigned runtime() const { return (bits >> kRuntimeShift) & 0x3f; }
    std::uint32_t epoch() const { return static_cast<std::uint32_t>(bits >> 32); }
    // Something was asked that may end the present wait.
    bool interrupted() const { return (requests() & accepts()) != 0; }
  };

  enum class Outcome {
    kNoted,    // the fiber finds the request at its next wait
    kWoken,    // the caller claimed the fiber and must make it runnable
    kMessage,  // the caller must send the fiber's block to the inbox of worker `ring`
  };
  struct Requested {
    Outcome outcome;
    unsigned ring;
  };

  enum class Message {
    kDrop,     // the wait is over: nothing to do
    kCancel,   // it waits in this ring: cancel its operation
    kForward,  // it waits in ring `ring`: send the block on; it still counts as queued
    // the fiber has ended, and the block waited for this message: give it back to its pool
    kRelease,
  };
  struct Received {
    Message message;
    unsigned ring;
  };

  // ---- The fiber, and the worker that runs it

  // kFree -> kRunnable, with no requests. Call from: whoever owns the block.
  void begin(unsigned runtime) {
    // relaxed: nobody else knows a free block; who asks something of the fiber finds it in its group, under
    // a lock that orders this before.
    const std::uint64_t epoch = word_.load(std::memory_order_relaxed) & kEpochMask;
    word_.store(epoch | static_cast<std::uint64_t>(FiberState::kRunnable) |
                    (std::uint64_t{runtime} << kRuntimeShift),
                std::memory_order_relaxed);
  }

  // kRunnable -> kFree. False: a message about the block is still on its way; then its receiver gives the
  // block back. Call from: free_fiber.
  [[nodiscard]] bool free() {
    // acquire: pairs with receive(), which may have let the block go just now.
    std::uint64_t seen = word_.load(std::memory_order_acquire);
    while (View{seen}.queued() && !base::planted(10)) {
      const std::uint64_t kept = kEpochMask | kRuntimeMask | kQueuedBit;
      // acq_rel: the receiver sees the fiber's end. [claim]
      if (word_.compare_exchange_weak(seen, seen & kept, std::memory_order_acq_rel,
                                      std::memory_order_acquire)) {
        return false;
      }
    }
    // A plain store: nobody else claims or asks any more. release: the fiber's end.
    word_.store(seen & kEpochMask, std::memory_order_release);
    return true;
  }

  // The epoch that the fiber's next wait will have. Call from: the fiber; only wakes change it.
  std::uint32_t epoch() const { return load().epoch(); }

  // Parks on an object: kRunnable -> kParked, unless a request that `accepts` names is there already:
  // then false, and the fiber stays runnable. Call from: the fiber's commit step.
  bool park(unsigned accepts) {
    return park_word(std::uint64_t{accepts} << kAcceptsShift, accepts);
  }

  // Parks on an operation in ring `ring`; as park().
  bool park_in_ring(unsigned accepts, unsigned ring) {
    return park_word(ring_bits(accepts, ring), accepts);
  }

  // Parks on an operation that the kernel has already, whatever was asked: only its completion may end
  // this wait. True when something was asked, so that the caller must cancel the operation.
  bool park_in_ring_regardless(unsigned accepts, unsigned ring) {
    park_word(ring_bits(accepts, ring), 0);
    return load().interrupted();
  }

  // ---- Wakers

  // kParked -> kRunnable, if the wait is still that of `epoch`. True: the caller must make it runnable.
  // Call from: any thread that holds the lock of the object on which the fiber waits.
  bool claim(std::uint32_t epoch) {
    std::uint64_t seen = word_.load(std::memory_order_relaxed);  // relaxed: the CAS checks it
    while (true) {
      const View view{seen};
      if (view.state() != FiberState::kParked) return false;
      if (view.epoch() != epoch && !base::planted(12)) return false;
      // release: what the waker handed over; acquire: what the fiber left when it parked. [claim]
      if (word_.compare_exchange_weak(seen, resumed(seen), std::memory_order_acq_rel,
                                      std::memory_order_relaxed)) {
        return true;
      }
    }
  }

  // kParked in ring -> kRunnable: the operation's completion was reaped. Call from: the ring's owner.
  void complete() {
    std::uint64_t seen = word_.load(std::memory_order_relaxed);  // relaxed: the CAS checks it
    // acq_rel: as claim(). Only requests can change the word meanwhile.
    while (!word_.compare_exchange_weak(seen, resumed(seen), std::memory_order_acq_rel,
                                        std::memory_order_relaxed)) {
    }
  }

  // ---- Cancellers

  // Asks. Call from: any thread that keeps the block alive meanwhile.
  Requested request(Request what) { return request_and_note(what, 0); }

  // As request(kCancel), but of the fiber itself and not of one of its levels: it is noted for good, and
  // a level that takes its own request back asks again.
  Requested request_end() { return request_and_note(kCancel, kEndingBit); }

  // The message "look at this block's word" has arrived at the worker that owns ring `ring`.
  // It carries no epoch: whatever wait is found now is the one that the request is about.
  Received receive(unsigned ring) {
    std::uint64_t seen = word_.load(std::memory_order_relaxed);  // relaxed: the CAS checks it
    while (true) {
      const View view{seen};
      const bool ended = view.state() == FiberState::kFree;
      const bool waits =
          view.state() == FiberState::kParked && view.in_ring() && view.interrupted();
      const bool here = waits && view.ring() == ring;
      if (waits && !here && !base::planted(18)) return {Message::kForward, view.ring()};
      if constexpr (base::planted(16)) {
        word_.fetch_and(~kQueuedBit, std::memory_order_acq_rel);
        return {here ? Message::kCancel : Message::kDrop, ring};
      }
      // acq_rel: as request(); one CAS, so that no request can slip between the look and the clearing.
      if (word_.compare_exchange_weak(seen, seen & ~kQueuedBit, std::memory_order_acq_rel,
                                      std::memory_order_relaxed)) {
        return {ended ? Message::kRelease : here ? Message::kCancel : Message::kDrop, ring};
      }
    }
  }

  // Takes requests back: a level was left, a stream was closed. The caller looks at the remaining
  // levels afterwards and asks again if one of them is raised. Call from: the fiber.
  void withdraw(Request what) {
    const std::uint64_t kept = ~(std::uint64_t{what} << kRequestsShift);
    if constexpr (base::planted(13)) {
      const std::uint64_t seen = word_.load(std::memory_order_acquire);
      return word_.store(seen & kept, std::memory_order_release);
    }
    // acq_rel: orders the caller's second look at the levels behind it. [level]
    word_.fetch_and(kept, std::memory_order_acq_rel);
  }

  View load() const {
    return View{word_.load(std::memory_order_acquire)};  // acquire: pairs with request(). [claim]
  }
  // True when something that `accepts` names was asked. Call from: the fiber; one load.
  bool asked(unsigned accepts) const { return (load().requests() & accepts) != 0; }

 private:
  static constexpr unsigned kRequestsShift = 3;
  static constexpr unsigned kAcceptsShift = 6;
  static constexpr std::uint64_t kQueuedBit = 1u << 9;
  static constexpr std::uint64_t kInRingBit = 1u << 10;
  static constexpr std::uint64_t kEndingBit = 1u << 11;
  static constexpr unsigned kRingShift = 12;     // 10 bits: at most 1,024 workers in a runtime
  static constexpr unsigned kRuntimeShift = 22;  // 6 bits: at most 64 runtimes at a time
  static constexpr std::uint64_t kRuntimeMask = std::uint64_t{0x3f} << kRuntimeShift;
  static constexpr std::uint64_t kEpochMask = ~std::uint64_t{0} << 32;
  static constexpr std::uint64_t kWaitMask =
      (std::uint64_t{7} << kAcceptsShift) | kInRingBit | (std::uint64_t{0x3ff} << kRingShift);

  static std::uint64_t ring_bits(unsigned accepts, unsigned ring) {
    return (std::uint64_t{accepts} << kAcceptsShift) | kInRingBit |
           (std::uint64_t{ring} << kRingShift);
  }

  // The word of a fiber whose wait has just ended: the epoch moves on, so that late wakers miss.
  static std::uint64_t resumed(std::uint64_t bits) {
    return ((bits & ~std::uint64_t{7} & ~kWaitMask) |
            static_cast<std::uint64_t>(FiberState::kRunnable)) +
           (std::uint64_t{base::planted(29) ? 0u : 1u} << 32);
  }

  Requested request_and_note(Request what, std::uint64_t noted) {
    std::uint64_t seen = word_.load(std::memory_order_relaxed);  // relaxed: the CAS checks it
    while (true) {
      const View view{seen};
      std::uint64_t wanted = seen | (std::uint64_t{what} << kRequestsShift) | noted;
      Requested result{Outcome::kNoted, 0};
      if (view.state() == FiberState::kParked && (view.accepts() & what) != 0) {
        if (!view.in_ring()) {
          wanted = resumed(wanted);
          result.outcome = Outcome::kWoken;
        } else if (!view.queued() || base::planted(30)) {
          wanted |= kQueuedBit;
          result = {Outcome::kMessage, view.ring()};
        }
      }
      // release: the level's flag, set before, tells the fiber why; acquire: as claim(). [claim]
      if (word_.compare_exchange_weak(seen, wanted, std::memory_order_acq_rel,
                                      std::memory_order_relaxed)) {
        return result;
      }
    }
  }

  bool park_word(std::uint64_t wait, unsigned refuse) {
    // acquire, here and when the CAS fails: who is refused looks next at the flag that was set before the
    // request. [level]
    std::uint64_t seen = word_.load(std::memory_order_acquire);
    while (true) {
      if ((View{seen}.requests() & refuse) != 0 && !base::planted(11)) return false;
      const std::uint64_t wanted =
          (seen & ~std::uint64_t{7}) | static_cast<std::uint64_t>(FiberState::kParked) | wait;
      // release: the fiber's registers are on its stack. acquire: as above, for the wait that is entered.
      if (word_.compare_exchange_weak(seen, wanted, std::memory_order_acq_rel,
                                      std::memory_order_acquire)) {
        return true;
      }
    }
  }

  base::Atomic<std::uint64_t> word_{0};
};

}  // namespace weft::sched
