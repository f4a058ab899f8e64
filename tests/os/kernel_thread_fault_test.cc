// What is left when a step of a start fails: a plain libc thread that says why, or nothing at all.

#include <atomic>
#include <cerrno>
#include <string>
#include <vector>

#include <linux/prctl.h>
#include <sys/mman.h>

#include <catch2/catch.hpp>

#include "runtime/os/kernel_thread.h"
#include "runtime/os/system.h"
#include "tests/support/libc_checks.h"
#include "tests/support/proc.h"
#include "tests/support/sanitizer.h"
#include "tests/support/thread_identity.h"

using namespace weft;
using os::system::Call;

namespace {

struct ArmedFault {
  ArmedFault(Call call, int error, unsigned nth = 0, unsigned repeat = 1, int advice = -1) {
    os::system::arm_fault(call, nth, error, repeat, advice);
  }
  ~ArmedFault() { os::system::disarm_faults(); }
};

struct Observed {
  test::ThreadSecrets secrets = test::read_secrets();
  const char* wrong = "did not run";
};

void observe(void* argument) {
  auto* observed = static_cast<Observed*>(argument);
  observed->wrong = test::check_identity(observed->secrets);
  if (observed->wrong == nullptr) observed->wrong = test::check_thread_inside();
}

}  // namespace

TEST_CASE("kernel thread: a refused step leaves a plain libc thread that says why",
          "[kernel_thread][fault]") {
  struct Refusal {
    Call call;
    int error;
    int advice;
    const char* step;
  };
  const Refusal refusal = GENERATE(values<Refusal>({
      {Call::kClone, EPERM, -1, "clone"},
      {Call::kClone, ENOSYS, -1, "clone"},
      {Call::kClone, EAGAIN, -1, "clone"},
      {Call::kGetRobustList, ENOSYS, -1, "get_robust_list"},
      {Call::kPrctl, EINVAL, PR_GET_TID_ADDRESS, "prctl(PR_GET_TID_ADDRESS)"},
  }));
  os::KernelThread thread;
  Observed observed;
  int error = 0;
  {
    const ArmedFault fault(refusal.call, refusal.error, 0, 1, refusal.advice);
    error = thread.start(observe, &observed);
  }
  REQUIRE(error == 0);
  CHECK_FALSE(thread.raw_clone());
  REQUIRE(thread.fallback_step() != nullptr);
  CHECK(std::string(thread.fallback_step()) == refusal.step);
  CHECK(thread.fallback_errno() == refusal.error);
  thread.join();
  INFO((observed.wrong != nullptr ? observed.wrong : ""));
  CHECK(observed.wrong == nullptr);
}

TEST_CASE("kernel thread: in a batch each thread falls back by itself", "[kernel_thread][fault]") {
  os::KernelThread threads[3];
  Observed observed[3];
  std::vector<os::ThreadStart> starts;
  for (int i = 0; i < 3; ++i) starts.push_back({&threads[i], observe, &observed[i]});
  int error = 0;
  {
    const ArmedFault fault(Call::kClone, EAGAIN, 1);
    error = os::KernelThread::start_all(starts);
  }
  REQUIRE(error == 0);
  int adopted = 0;
  for (int i = 0; i < 3; ++i) {
    adopted += threads[i].raw_clone() ? 1 : 0;
    threads[i].join();
    CHECK(observed[i].wrong == nullptr);
  }
  CHECK(adopted == 2);
}

TEST_CASE("kernel thread: without rseq it is adopted all the same", "[kernel_thread][fault]") {
  os::KernelThread thread;
  struct {
    const char* registered = nullptr;
    const char* cpu = "did not run";
  } seen;
  int error = 0;
  {
    const ArmedFault fault(Call::kRseq, EINVAL);
    error = thread.start(
        [](void* argument) {
          auto* to = static_cast<decltype(seen)*>(argument);
          to->registered = test::check_rseq_registered();
          to->cpu = test::check_current_cpu();  // libc must ask the kernel now
        },
        &seen);
  }
  REQUIRE(error == 0);
  CHECK(thread.raw_clone());
  thread.join();
  if (__rseq_size != 0) CHECK(seen.registered != nullptr);
  CHECK(seen.cpu == nullptr);
}

TEST_CASE("kernel thread: a plain one when asked for, with nothing to explain", "[kernel_thread]") {
  os::KernelThread thread;
  Observed observed;
  REQUIRE(thread.start(observe, &observed, {.kind = os::ThreadKind::kPlain}) == 0);
  CHECK_FALSE(thread.raw_clone());
  CHECK(thread.fallback_step() == nullptr);
  CHECK(thread.fallback_errno() == 0);
  thread.join();
  CHECK(observed.wrong == nullptr);
}

TEST_CASE("kernel thread: without a stack nothing is started and nothing kept",
          "[kernel_thread][fault]") {
  const auto [call, advice] = GENERATE(table<Call, int>({
      {Call::kMmap, -1},
      {Call::kMprotect, PROT_NONE},
  }));
  // The first, a middle and the last of a batch.
  const unsigned nth = GENERATE(0u, 1u, 3u);
  os::KernelThread threads[4];
  std::atomic<int> runs{0};
  std::vector<os::ThreadStart> starts;
  for (os::KernelThread& thread : threads) {
    // relaxed: it is looked at when all have ended.
    const auto body = [](void* counter) {
      static_cast<std::atomic<int>*>(counter)->fetch_add(1, std::memory_order_relaxed);
    };
    starts.push_back({&thread, body, &runs});
  }
  int error = 0;
  unsigned kept = 0;
  {
    const ArmedFault fault(call, ENOMEM, nth, 1, advice);
    error = os::KernelThread::start_all(starts);
    // Every mapping that was made is gone; the one that failed was none. Only where the seam counts all.
    if (call == Call::kMmap) kept = nth - os::system::calls_seen(Call::kMunmap);
  }
  CHECK(error == -ENOMEM);
  CHECK(kept == 0);
  // relaxed: as above.
  CHECK(runs.load(std::memory_order_relaxed) == 0);
  // They are as good as new.
  REQUIRE(os::KernelThread::start_all(starts) == 0);
  for (os::KernelThread& thread : threads) thread.join();
  CHECK(runs.load(std::memory_order_relaxed) == 4);
}

TEST_CASE("kernel thread: 1,000 starts and joins leave nothing behind", "[kernel_thread][C12]") {
  const auto start_and_join = [](int times) {
    int failed = 0;
    for (int i = 0; i < times; ++i) {
      os::KernelThread thread;
      // Its arena, cache and thread_locals must go, too.
      const auto body = [](void*) {
        thread_local std::string local(1000, 'l');
        std::vector<std::string> heap(100, local);
        if (heap.back().size() != local.size()) std::abort();
      };
      failed += thread.start(body, nullptr) != 0;
      thread.join();
    }
    return failed;
  };
  REQUIRE(start_and_join(50) == 0);
  const test::ProcessUse before = test::process_use();
  REQUIRE(start_and_join(1000) == 0);
  const test::ProcessUse after = test::process_use(before.threads);
  CHECK(after.threads == before.threads);
  CHECK(after.descriptors == before.descriptors);
  // The heap, and what a sanitizer keeps, may have grown by a few mappings; a leak would be 1,000.
  CHECK(after.mappings < before.mappings + 100);
  if (!test::kAddressSanitizer && !test::kThreadSanitizer) {
    CHECK(after.resident_kib < before.resident_kib + 1024);
  }
}
