// One call of the seam fails, each kind, each call in turn, until the service no longer meets the fault: it
// copes or says which step failed and why, and leaves nothing behind.
#include <cerrno>
#include <system_error>

#include <malloc.h>

#include <catch2/catch.hpp>

#include "runtime/os/system.h"
#include "tests/faults/echo_service.h"
#include "tests/maps.h"
#include "tests/support/proc.h"
#include "tests/support/watchdog.h"

namespace weft {
namespace {

using os::system::Call;

struct Fault {
  const char* name;
  Call call;
  int error;
};

constexpr Fault kFaults[] = {
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

// Which fault is being tried, for the watchdog.
struct Trying {
  const char* name = "";
  std::atomic<unsigned> nth{0};
};

struct Tried {
  test::Outcome outcome;
  bool met = false;  // the fault was hit
  long threads = 0;  // more than before, as all of these
  long descriptors = 0;
  long mappings = 0;
};

// The fault hits call `nth`, and the `repeat - 1` of that kind after it.
Tried try_with(const Fault& fault, unsigned nth, unsigned repeat = 1) {
  Tried tried;
  const test::ProcessUse before = test::process_use();
  const auto mappings = static_cast<long>(test::mapping_count());
  os::system::arm_fault(fault.call, nth, fault.error, repeat);
  tried.outcome = test::echo_service();
  tried.met = os::system::calls_seen(fault.call) > nth;
  os::system::disarm_faults();
  const test::ProcessUse after = test::process_use(before.threads);
  tried.threads = after.threads - before.threads;
  tried.descriptors = after.descriptors - before.descriptors;
  tried.mappings = static_cast<long>(test::mapping_count()) - mappings;
  return tried;
}

// Says which operation failed, and with what.
bool explains(const test::Outcome& outcome, int error) {
  const std::string text = outcome.text();
  return text.find(std::generic_category().message(error)) != std::string::npos ||
         text.find("no memory for a control block") != std::string::npos;
}

// What a runtime keeps for the next one (control blocks, arenas of malloc) it keeps once: whatever is lost is
// lost each time.
bool loses_mappings(const Fault& fault, unsigned nth) {
  const long refused = fault.call == Call::kMunmap ? 2 : 0;  // a thread's stack and its guard
  for (int attempt = 0; attempt < 3; ++attempt) {
    if (try_with(fault, nth).mappings <= refused) return false;
  }
  return true;
}

TEST_CASE("single fault: whichever call fails, the service ends in order", "[faults][K1]") {
  mallopt(M_ARENA_MAX, 1);
  Trying trying;
  const test::Watchdog watchdog(
      [] { return test::services_ended.load(); },
      [&trying] { return std::string(trying.name) + " " + std::to_string(trying.nth) + "\n"; });
  REQUIRE(test::echo_service().whole());
  unsigned services = 0;
  for (const Fault& fault : kFaults) {
    trying.name = fault.name;
    for (unsigned nth = 0;; ++nth, ++services) {
      trying.nth = nth;
      const Tried tried = try_with(fault, nth);
      INFO(fault.name << " number " << nth << ": " << std::generic_category().message(fault.error)
                      << "\n"
                      << tried.outcome.text());
      if (!tried.outcome.whole()) {
        CHECK(tried.met);
        CHECK(explains(tried.outcome, fault.error));
      }
      CHECK(tried.threads == 0);
      CHECK(tried.descriptors == 0);
      if (tried.mappings > 0) CHECK_FALSE(loses_mappings(fault, nth));
      if (!tried.met) {
        CHECK(tried.outcome.whole());
        CHECK(nth > 0);  // otherwise the scenario does not make the call at all
        break;
      }
    }
  }
  std::printf("%u services\n", services);
}

TEST_CASE("single fault: a call that fails from then on ends nothing but what needs it",
          "[faults][K1]") {
  mallopt(M_ARENA_MAX, 1);
  Trying trying;
  const test::Watchdog watchdog(
      [] { return test::services_ended.load(); },
      [&trying] { return std::string(trying.name) + " " + std::to_string(trying.nth) + "\n"; });
  for (const Fault& fault : kFaults) {
    if (fault.call == Call::kIoUringEnter)
      continue;                                 // for ever: there is no other way to the kernel
    if (fault.call == Call::kMunmap) continue;  // each would be lost, as the kernel wants it
    trying.name = fault.name;
    for (unsigned nth = 0;; ++nth) {
      trying.nth = nth;
      const Tried tried = try_with(fault, nth, ~0u);
      INFO(fault.name << " from number " << nth
                      << " on: " << std::generic_category().message(fault.error) << "\n"
                      << tried.outcome.text());
      if (!tried.outcome.whole()) CHECK(explains(tried.outcome, fault.error));
      CHECK(tried.threads == 0);
      CHECK(tried.descriptors == 0);
      if (!tried.met) break;
    }
  }
}

}  // namespace
}  // namespace weft
