// A trial: the echo service with one fault armed, and what it left behind.
//
//   test::Trying trying;                                // watches, and names the fault when a trial hangs
//   trying.now(fault, nth);
//   const test::Tried tried = test::try_with(fault, nth);
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <string>
#include <system_error>

#include <malloc.h>

#include "runtime/os/system.h"
#include "runtime/sched/core.h"
#include "tests/faults/echo_service.h"
#include "tests/maps.h"
#include "tests/support/proc.h"
#include "tests/support/watchdog.h"

namespace weft::test {

struct Fault {
  const char* name;
  os::system::Call call;
  int error;
};

class Trying {
 public:
  // `disarm` ends the faults before the report of a hang.
  // One arena of malloc: others would come and go among the mappings that are counted.
  explicit Trying(void (*disarm)() = &os::system::disarm_faults) : disarm_(disarm) {
    mallopt(M_ARENA_MAX, 1);
  }

  void now(const Fault& fault, std::uint64_t nth) {
    const std::lock_guard hold(mutex_);
    std::snprintf(text_, sizeof text_, "%s number %llu: %s", fault.name,
                  static_cast<unsigned long long>(nth), strerrordesc_np(fault.error));
  }
  std::string text() const {
    const std::lock_guard hold(mutex_);
    return text_;
  }

 private:
  std::string report() const {
    disarm_();
    std::string all = text() + "\n";
    sched::Core::for_each([&all](sched::Core& core) { all += core.dump_fibers(); });
    return all;
  }

  void (*const disarm_)();
  mutable std::mutex mutex_;
  char text_[200] = {};
  Watchdog watchdog_{[] { return services_ended.load(); }, {[this] { return report(); }}};
};

struct Tried {
  Outcome outcome;
  bool met = false;  // the fault was hit
  long threads = 0;  // more than before, as the next two
  long descriptors = 0;
  long mappings = 0;
};

// The fault hits call `nth`, and the `repeat - 1` of that kind after it.
inline Tried try_with(const Fault& fault, unsigned nth, unsigned repeat = 1) {
  Tried tried;
  const ProcessUse before = process_use();
  const auto mappings = static_cast<long>(mapping_count());
  os::system::arm_fault(fault.call, nth, fault.error, repeat);
  tried.outcome = echo_service();
  tried.met = os::system::calls_seen(fault.call) > nth;
  os::system::disarm_faults();
  const ProcessUse after = process_use(before.threads);
  tried.threads = after.threads - before.threads;
  tried.descriptors = after.descriptors - before.descriptors;
  tried.mappings = static_cast<long>(mapping_count()) - mappings;
  return tried;
}

// Says which operation failed, and with what.
inline bool explains(const Outcome& outcome, int error) {
  const std::string text = outcome.text();
  return text.find(std::generic_category().message(error)) != std::string::npos ||
         text.find("no memory for a control block") != std::string::npos;
}

}  // namespace weft::test
