// One call of the seam fails, each kind, each call in turn, until the service no longer meets the fault: it
// copes or says which step failed and why, and leaves nothing behind.
#include <cerrno>
#include <cstdio>

#include <catch2/catch.hpp>

#include "tests/faults/trial.h"

namespace weft {
namespace {

using os::system::Call;

constexpr test::Fault kFaults[] = {
    {"mmap", Call::kMmap, ENOMEM},
    {"munmap", Call::kMunmap, ENOMEM},
    {"mprotect", Call::kMprotect, ENOMEM},
    {"madvise", Call::kMadvise, ENOMEM},
    {"madvise", Call::kMadvise, EINVAL},
    {"clone", Call::kClone, EAGAIN},
    {"io_uring_setup", Call::kIoUringSetup, ENOMEM},
    {"io_uring_setup", Call::kIoUringSetup, EMFILE},
    {"io_uring_register", Call::kIoUringRegister, ENOMEM},
    {"io_uring_enter", Call::kIoUringEnter, EBUSY},
    {"io_uring_enter", Call::kIoUringEnter, EAGAIN},
    {"io_uring_enter", Call::kIoUringEnter, EINTR},
    {"eventfd", Call::kEventfd, EMFILE},
    {"sigaltstack", Call::kSigaltstack, ENOMEM},
    {"socket", Call::kSocket, EMFILE},
    {"bind", Call::kBind, EADDRINUSE},
    {"listen", Call::kListen, EADDRINUSE},
    {"setsockopt", Call::kSetsockopt, ENOBUFS},
    {"close", Call::kClose, EIO},
    {"send", Call::kSend, ECONNRESET},
    {"send", Call::kSend, EAGAIN},
    {"open", Call::kOpen, EMFILE},
    {"munlock", Call::kMunlock, ENOMEM},
    {"prctl", Call::kPrctl, EINVAL},
    {"get_robust_list", Call::kGetRobustList, ENOSYS},
    {"rseq", Call::kRseq, EPERM},
};

// What a runtime keeps for the next one (control blocks, arenas of malloc) it keeps once: whatever is lost is
// lost each time.
bool loses_mappings(const test::Fault& fault, unsigned nth) {
  const long refused = fault.call == Call::kMunmap ? 2 : 0;  // a thread's stack and its guard
  for (int attempt = 0; attempt < 3; ++attempt) {
    if (try_with(fault, nth).mappings <= refused) return false;
  }
  return true;
}

TEST_CASE("single fault: whichever call fails, the service ends in order", "[faults][K1]") {
  test::Trying trying;
  REQUIRE(test::echo_service().whole());
  unsigned services = 0;
  for (const test::Fault& fault : kFaults) {
    for (unsigned nth = 0;; ++nth, ++services) {
      trying.now(fault, nth);
      const test::Tried tried = test::try_with(fault, nth);
      INFO(trying.text() << "\n" << tried.outcome.text());
      if (!tried.outcome.whole()) {
        CHECK(tried.met);
        CHECK(test::explains(tried.outcome, fault.error));
      }
      CHECK(tried.threads <= 0);
      CHECK(tried.descriptors == 0);
      if (tried.mappings > 0) CHECK_FALSE(loses_mappings(fault, nth));
      if (tried.met) continue;
      CHECK(tried.outcome.whole());
      // A send that leaves at once is up to the moment: some service makes one.
      for (int more = 0; nth == 0 && more < 100; ++more) {
        if (test::try_with(fault, nth).met) ++nth;
      }
      CHECK(nth > 0);
      break;
    }
  }
  std::printf("%u services\n", services);
}

TEST_CASE("single fault: a call that fails from then on ends nothing but what needs it",
          "[faults][K1]") {
  test::Trying trying;
  for (const test::Fault& fault : kFaults) {
    if (fault.call == Call::kIoUringEnter)
      continue;                                 // for ever: there is no other way to the kernel
    if (fault.call == Call::kMunmap) continue;  // each would be lost, as the kernel wants it
    for (unsigned nth = 0;; ++nth) {
      trying.now(fault, nth);
      const test::Tried tried = test::try_with(fault, nth, ~0u);
      INFO(trying.text() << " and on\n" << tried.outcome.text());
      if (!tried.outcome.whole()) CHECK(test::explains(tried.outcome, fault.error));
      CHECK(tried.threads <= 0);
      CHECK(tried.descriptors == 0);
      if (!tried.met) break;
    }
  }
}

}  // namespace
}  // namespace weft
