// The workers are whole libc threads: what libc and the kernel believe about them, asked from fibers that
// move, and the calls into libc and libstdc++ that break on a thread with half an identity.

#include <weft/fiber.h>
#include <weft/runtime.h>
#include <weft/scope.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include <signal.h>
#include <sys/auxv.h>

#include <catch2/catch.hpp>

#include "runtime/sched/core.h"
#include "runtime/sched/worker.h"
#include "tests/support/libc_checks.h"
#include "tests/support/on_fiber.h"
#include "tests/support/skip.h"
#include "tests/support/thread_identity.h"

using namespace weft;

namespace {

constexpr int kWorkers = 3;
constexpr std::size_t kStackBytes =
    1 << 20;  // getaddrinfo, iostream and regex want more than a fiber has

bool raw_clone_on_all(Runtime& runtime) {
  sched::Core& core = *sched::core_of(runtime);
  for (int i = 0; i < core.worker_count(); ++i) {
    if (!core.worker(i).thread().raw_clone()) return false;
  }
  return true;
}

// Calls visit(i) on fibers of all workers at once: each stays on its kernel thread until all have come.
template <class Visit>
std::set<long> on_every_worker(Runtime& runtime, Visit visit) {
  std::mutex mutex;
  std::set<long> threads;
  std::atomic<int> arrived{0};
  FiberGroup group(runtime);
  for (int i = 0; i < kWorkers; ++i) {
    group.spawn(
        [&, i] {
          ++arrived;
          while (arrived != kWorkers) sched_yield();
          {
            std::lock_guard hold(mutex);
            threads.insert(test::kernel_thread());
          }
          visit(i);
        },
        {.stack_size = kStackBytes});
  }
  CHECK(group.join().ok());
  return threads;
}

}  // namespace

TEST_CASE("identity: every worker passes the self-check, on fibers that move", "[identity][I1]") {
  const test::ThreadSecrets secrets = test::read_secrets();
  auto runtime =
      Runtime::start({.workers = kWorkers, .shuffle_wakes = true, .handle_signals = false});
  REQUIRE(runtime.ok());
  if (!raw_clone_on_all(**runtime)) return test::skip_case("raw clone is refused here");
  std::vector<std::string> wrong(kWorkers);
  const std::set<long> threads = on_every_worker(**runtime, [&](int i) {
    const char* found = test::check_identity(secrets);
    if (found != nullptr) wrong[static_cast<std::size_t>(i)] = found;
  });
  CHECK(threads.size() == kWorkers);
  CHECK(wrong == std::vector<std::string>(kWorkers));

  std::atomic<int> good{0};
  std::atomic<int> moves{0};
  FiberGroup group(**runtime);
  for (int i = 0; i < 20; ++i) {
    group.spawn([&] {
      long before = test::kernel_thread();
      for (int round = 0; round < 20; ++round) {
        good += test::check_identity(secrets) == nullptr ? 1 : 0;
        static_cast<void>(sleep_for(absl::Microseconds(10)));
        const long now = test::kernel_thread();
        moves += now != before ? 1 : 0;
        before = now;
      }
    });
  }
  CHECK(group.join().ok());
  CHECK(good == 400);
  CHECK(moves > 0);
}

// A fiber that ran off its stack leaves no room on it for the handler that says so.
TEST_CASE("identity: every worker has a stack of its own for signal handlers",
          "[identity][I1][G1]") {
  auto runtime = Runtime::start({.workers = kWorkers, .handle_signals = false});
  REQUIRE(runtime.ok());
  std::vector<stack_t> stacks(kWorkers);
  on_every_worker(**runtime,
                  [&](int i) { sigaltstack(nullptr, &stacks[static_cast<std::size_t>(i)]); });
  std::set<void*> places;
  for (const stack_t& stack : stacks) {
    CHECK(stack.ss_flags == 0);  // there is one, and nobody is on it
    CHECK(stack.ss_size >= (64 << 10));
    CHECK(stack.ss_size >= 4 * getauxval(AT_MINSIGSTKSZ));
    places.insert(stack.ss_sp);
  }
  CHECK(places.size() == kWorkers);
}

TEST_CASE("identity: libc and libstdc++ work in fibers on every worker", "[identity][I2]") {
  auto runtime = Runtime::start({.workers = kWorkers, .handle_signals = false});
  REQUIRE(runtime.ok());
  if (!raw_clone_on_all(**runtime)) return test::skip_case("raw clone is refused here");
  // One worker after the other: the check of sigaction changes the whole process for a moment.
  std::mutex one_at_a_time;
  std::vector<std::string> wrong;
  const std::set<long> threads = on_every_worker(**runtime, [&](int) {
    std::lock_guard hold(one_at_a_time);
    for (const test::LibcCheck& check : test::libc_checks()) {
      if (const char* found = check.run()) wrong.push_back(std::string(check.name) + ": " + found);
    }
  });
  CHECK(threads.size() == kWorkers);
  CHECK(wrong == std::vector<std::string>());
}

TEST_CASE("identity: a recursive mutex excludes fibers on two workers", "[identity][I2]") {
  auto runtime = Runtime::start({.workers = kWorkers, .handle_signals = false});
  REQUIRE(runtime.ok());
  test::RecursiveCount counter;
  on_every_worker(**runtime, [&counter](int i) {
    if (i < 2) counter.run();
  });
  CHECK(counter.count == 2L * test::RecursiveCount::kTurns);
}
