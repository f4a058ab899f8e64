// Plans for the seam, decided by a seed: faults at random, and transfers cut short.
//
//   test::RandomFaults faults(seed, 100);             // one call in a hundred
//   os::system::arm_plan(faults);
//
// Promises: the n-th decision of a seed is always the same; which call meets it is up to the scheduler.
#pragma once

#include <cerrno>
#include <cstdint>

#include "runtime/base/atomic.h"
#include "runtime/os/system.h"
#include "tests/support/random.h"

namespace weft::test {

class SeededPlan : public os::system::FaultPlan {
 public:
  explicit SeededPlan(std::uint64_t seed) : seed_(seed) {}

 protected:
  std::uint64_t draw() {
    // relaxed: a number for each decision, whoever gets which.
    const std::uint64_t index = drawn_.fetch_add(1, std::memory_order_relaxed);
    return Random(seed_ + index * 0x632be59bd9b4e019).next();
  }

 private:
  const std::uint64_t seed_;
  base::Atomic<std::uint64_t> drawn_{0};
};

class RandomFaults final : public SeededPlan {
 public:
  RandomFaults(std::uint64_t seed, unsigned one_in) : SeededPlan(seed), one_in_(one_in) {}

  int fault(os::system::Call call) override {
    const std::uint64_t number = draw();
    if (number % one_in_ != 0) return 0;
    met_.fetch_add(1, std::memory_order_relaxed);  // relaxed: a statistic
    return -error_of(call, (number >> 32) % 2 == 0);
  }
  std::uint64_t met() const { return met_.load(std::memory_order_relaxed); }  // relaxed: as above

 private:
  // What the kernel may say to such a call; 0: it cannot fail here.
  static int error_of(os::system::Call call, bool first) {
    using os::system::Call;
    switch (call) {
      case Call::kMmap:
      case Call::kMunmap:
      case Call::kMprotect:
      case Call::kMadvise:
      case Call::kMunlock:
        return ENOMEM;
      case Call::kIoUringEnter:
        return first ? EBUSY : EINTR;
      case Call::kSocket:
      case Call::kOpen:
        return first ? EMFILE : ENFILE;
      case Call::kSetsockopt:
        return ENOBUFS;
      case Call::kClose:
        return first ? EINTR : EIO;
      case Call::kAccept:
      case Call::kRingAccept:
        return first ? ECONNABORTED : EMFILE;
      case Call::kRingConnect:
        return first ? ECONNREFUSED : EINTR;
      case Call::kSend:
      case Call::kReceive:
      case Call::kRingSend:
      case Call::kRingReceive:
        return first ? ECONNRESET : EAGAIN;
      case Call::kRingPoll:
        return ECANCELED;
      default:
        return 0;
    }
  }

  const unsigned one_in_;
  base::Atomic<std::uint64_t> met_{0};
};

// Every transfer is one of 1 to n - 1 bytes, where there are two.
class ShortTransfers final : public SeededPlan {
 public:
  using SeededPlan::SeededPlan;
  int fault(os::system::Call) override { return 0; }
  unsigned transfer(os::system::Call, unsigned bytes) override {
    if (bytes < 2) return bytes;
    cut_.fetch_add(1, std::memory_order_relaxed);  // relaxed: a statistic
    return 1 + static_cast<unsigned>(draw() % (bytes - 1));
  }
  std::uint64_t cut() const { return cut_.load(std::memory_order_relaxed); }  // relaxed: as above

 private:
  base::Atomic<std::uint64_t> cut_{0};
};

}  // namespace weft::test
