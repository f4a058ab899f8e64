// Privileges that a process gives up while workers run and while they start: setresuid() reaches every worker, as
// every thread of libc, and so does a seccomp filter that is installed for all threads. Capabilities and filters
// without that flag belong to the one thread that asks, workers or not. [I5]
//
// A child each: what is given up does not come back.

#include <weft/fiber.h>
#include <weft/runtime.h>
#include <weft/scope.h>

#include <atomic>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <string>
#include <thread>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "tests/death.h"
#include "tests/support/on_fiber.h"
#include "tests/support/sanitizer.h"
#include "tests/support/skip.h"

using namespace weft;

namespace {

constexpr uid_t kNobody = 65534;
constexpr auto kKeep = static_cast<uid_t>(-1);

// The line `field` of the status of every thread of this process.
std::multiset<std::string> of_all_threads(const std::string& field) {
  std::multiset<std::string> found;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream status(task.path() / "status");
    for (std::string line; std::getline(status, line);) {
      if (line.rfind(field, 0) == 0) found.insert(line);
    }
  }
  return found;
}

bool all_the_same(const std::string& field, std::size_t at_least) {
  const auto lines = of_all_threads(field);
  return lines.size() >= at_least && lines.count(*lines.begin()) == lines.size();
}

// Fibers that are busy on all workers meanwhile.
class Busy {
 public:
  explicit Busy(Runtime& runtime) : group_(runtime) {
    for (int i = 0; i < 8; ++i) {
      group_.spawn([this] {
        while (!over_) {
          ++turns_;
          this_fiber::yield();
        }
      });
    }
  }
  // Returns when fibers have run since the call.
  void see_turns() {
    const std::uint64_t before = turns_;
    while (turns_ < before + 100) sched_yield();
  }
  bool end() {
    over_ = true;
    return group_.join().ok();
  }

 private:
  std::atomic<bool> over_{false};
  std::atomic<std::uint64_t> turns_{0};
  FiberGroup group_;  // last: its fibers use the above
};

std::unique_ptr<Runtime> started(int workers) {
  auto runtime = Runtime::start({.workers = workers, .handle_signals = false});
  if (!runtime.ok()) _exit(100);
  return *std::move(runtime);
}

// 0, or which step went wrong.
int drop_while_running() {
  auto runtime = started(3);
  Busy busy(*runtime);
  busy.see_turns();
  for (int i = 0; i < 200; ++i) {
    if (setresuid(kKeep, i % 2 == 0 ? kNobody : 0, kKeep) != 0) return 1;
    if (i % 20 == 0 && !all_the_same("Uid:", 4)) return 2;
  }
  if (setresuid(kNobody, kNobody, kNobody) != 0) return 3;
  if (!all_the_same("Uid:", 4)) return 4;
  uid_t seen = 0;
  if (!runtime->block_on([&seen] { seen = geteuid(); }).ok() || seen != kNobody) return 5;
  busy.see_turns();
  return busy.end() && runtime->stop().ok() ? 0 : 6;
}

int drop_while_starting() {
  std::atomic<bool> over{false};
  std::atomic<int> refused{0};
  std::thread dropping([&] {
    for (unsigned i = 0; !over; ++i) {
      refused += setresuid(kKeep, i % 2 == 0 ? kNobody : 0, kKeep) != 0 ? 1 : 0;
    }
  });
  int wrong = 0;
  for (int i = 0; i < 30 && wrong == 0; ++i) {
    auto runtime = started(2);
    if (!runtime->block_on([] { this_fiber::yield(); }).ok()) wrong = 1;
    if (!runtime->stop().ok()) wrong = 2;
  }
  auto last = started(3);
  over = true;
  dropping.join();
  if (wrong == 0 && refused != 0) wrong = 3;
  return wrong == 0 && !all_the_same("Uid:", 4) ? 4 : wrong;
}

// A filter that allows everything, for all threads.
bool install_filter() {
  sock_filter allow = {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW};
  sock_fprog program = {1, &allow};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) == 0;
}

int filter_while_running() {
  auto runtime = started(3);
  Busy busy(*runtime);
  busy.see_turns();
  if (!install_filter()) return 77;
  if (!all_the_same("Seccomp:", 4)) return 1;
  if (of_all_threads("Seccomp:").count("Seccomp:\t2") < 4) return 2;
  busy.see_turns();
  auto later = started(2);  // its workers inherit the filter
  if (!all_the_same("Seccomp:", 6)) return 3;
  return busy.end() && runtime->stop().ok() && later->stop().ok() ? 0 : 4;
}

template <class Body>
void check_in_child(Body body) {
  const auto child = test::death_of([body] { _exit(body()); });
  INFO(child.errors);
  if (child.status == 77) return test::skip_case("seccomp filters are refused here");
  CHECK(child.signal == 0);
  CHECK(child.status == 0);
}

}  // namespace

TEST_CASE("privileges: setresuid() reaches all workers while they run", "[process][I5]") {
  if (geteuid() != 0) return test::skip_case("needs root to change users");
  check_in_child(&drop_while_running);
}

TEST_CASE("privileges: setresuid() while workers start leaves none behind", "[process][I5]") {
  if (geteuid() != 0) return test::skip_case("needs root to change users");
  check_in_child(&drop_while_starting);
}

TEST_CASE("privileges: a seccomp filter for all threads reaches all workers", "[process][I5]") {
  check_in_child(&filter_while_running);
}
