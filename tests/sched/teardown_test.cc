// The end of a runtime under the hands of others: a thread that is still ringing it, a second runtime whose
// fibers use it, and an owner that is a fiber.

#include <weft/fiber.h>
#include <weft/runtime.h>
#include <weft/scope.h>
#include <weft/time.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "runtime/sched/core.h"
#include "tests/support/baton.h"
#include "tests/support/on_fiber.h"
#include "tests/support/proc.h"
#include "tests/support/watchdog.h"

using namespace weft;

namespace {

std::unique_ptr<Runtime> started(int workers) {
  auto runtime =
      Runtime::start({.workers = workers, .handle_signals = false, .drain = absl::ZeroDuration()});
  REQUIRE(runtime.ok());
  return *std::move(runtime);
}

std::vector<int> eventfds() {
  std::vector<int> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code gone;  // the iterator's own descriptor may be
    if (std::filesystem::read_symlink(entry, gone) == "anon_inode:[eventfd]") {
      found.push_back(std::stoi(entry.path().filename()));
    }
  }
  return found;
}

// Whether a thread waits in the kernel.
bool is_asleep(long tid) {
  std::string line;
  std::getline(std::ifstream("/proc/self/task/" + std::to_string(tid) + "/stat"), line);
  return line.find(") S ") != line.npos;
}

// A pipe that is full: a write into it waits for release().
class FullPipe {
 public:
  FullPipe() {
    if (pipe2(ends_, O_CLOEXEC | O_NONBLOCK) != 0) std::abort();
    const std::vector<char> page(4096, 'x');
    while (write(ends_[1], page.data(), page.size()) > 0) {
    }
    fcntl(ends_[1], F_SETFL, 0);
  }
  ~FullPipe() {
    close(ends_[0]);
    close(ends_[1]);
  }
  FullPipe(const FullPipe&) = delete;
  FullPipe& operator=(const FullPipe&) = delete;

  int write_end() const { return ends_[1]; }
  void release() {
    std::vector<char> page(4096);
    while (read(ends_[0], page.data(), page.size()) > 0) {
    }
  }

 private:
  int ends_[2] = {-1, -1};
};

}  // namespace

// The doorbell of the only worker is a full pipe for a while, so that the thread that wakes the last fiber hangs
// in the middle of ringing. Everything else can end meanwhile; the runtime must not.
TEST_CASE("teardown: a runtime stays until the last thread that rings it has gone",
          "[runtime][I11]") {
  const std::vector<int> before = eventfds();
  auto runtime = started(1);
  std::vector<int> doorbells = eventfds();
  std::erase_if(doorbells,
                [&](int fd) { return std::count(before.begin(), before.end(), fd) != 0; });
  REQUIRE(doorbells.size() == 1);
  const int doorbell = doorbells.front();

  test::Baton baton;
  auto last = runtime->root().spawn([&baton] { baton.take(); });
  sched::Core& core = *sched::core_of(*runtime);
  while (core.live() == 0 || core.idle().sleepers() == 0) sched_yield();
  const int saved = fcntl(doorbell, F_DUPFD_CLOEXEC, 0);
  FullPipe pipe;
  REQUIRE(dup3(pipe.write_end(), doorbell, O_CLOEXEC) == doorbell);

  std::atomic<long> waker_tid{0};
  std::thread waker([&] {
    waker_tid = test::kernel_thread();
    baton.pass();
  });
  while (waker_tid == 0 || core.injection().empty() || !is_asleep(waker_tid)) sched_yield();
  REQUIRE(dup3(saved, doorbell, O_CLOEXEC) == doorbell);  // but the waker is in the pipe
  const std::uint64_t one = 1;
  REQUIRE(write(saved, &one, sizeof one) == sizeof one);
  CHECK(last.wait().ok());

  const long threads = test::process_use().threads;
  std::atomic<bool> stopped{false};
  std::thread stopper([&] {
    static_cast<void>(runtime->stop());
    stopped = true;
  });
  // The worker's thread goes, the stopper's came.
  while (test::entries("/proc/self/task") > threads && !stopped) sched_yield();
  for (int looks = 0; looks < 20'000 && !stopped; ++looks) sched_yield();
  const bool too_early = stopped;
  pipe.release();
  waker.join();
  stopper.join();
  close(saved);
  CHECK_FALSE(too_early);
}

TEST_CASE("teardown: of two runtimes that spawn into each other one may end while the other runs",
          "[runtime][I11]") {
  const int rounds = std::getenv("WEFT_SOAK") != nullptr ? 300 : 20;
  auto first = started(2);
  std::atomic<bool> over{false};
  std::atomic<std::uint64_t> turns{0};
  test::Watchdog watchdog([&] { return turns.load(); },
                          [&] { return sched::core_of(*first)->dump_fibers(); });
  FiberGroup stays(*first);
  for (int i = 0; i < 4; ++i) {
    stays.spawn([&] {
      while (!over) {
        ++turns;
        this_fiber::yield();
      }
    });
  }
  int answered = 0;
  int refused = 0;
  for (int round = 0; round < rounds; ++round) {
    auto second = started(1 + round % 3);
    auto of_second = std::make_unique<FiberGroup>(*second);
    std::atomic<int> good{0};
    {
      FiberGroup visitors(*first);
      for (int i = 0; i < 8; ++i) {
        visitors.spawn([&, i] {
          // There, and from there back here.
          auto far = of_second->spawn([&, i] {
            auto back = stays.spawn([i] {
              this_fiber::yield();
              return i;
            });
            return back.join().value_or(-1);
          });
          good += far.join().value_or(-1) == i ? 1 : 0;
        });
      }
      CHECK(visitors.join().ok());
    }
    // What is still parked in the second runtime ends with it; the group outlives it.
    of_second->spawn([] { static_cast<void>(test::park_until_interrupted()); });
    CHECK(second->stop().ok());
    answered += good;
    refused += of_second->spawn([] {}).join().code() == absl::StatusCode::kFailedPrecondition;
    const std::uint64_t before = turns;
    while (turns < before + 10) sched_yield();
  }
  CHECK(answered == 8 * rounds);
  CHECK(refused == rounds);
  over = true;
  CHECK(stays.join().ok());
  CHECK(first->stop().ok());
}

TEST_CASE("teardown: a fiber may end the runtime of others, and be the last owner of its own",
          "[runtime][I10]") {
  const test::ProcessUse before = test::process_use();
  std::promise<void> own_gone;
  absl::Status of_others = absl::UnknownError("not run");
  {
    std::shared_ptr<Runtime> own = started(2);
    auto others = started(2);
    for (int i = 0; i < 10; ++i) {
      others->root().spawn([] { static_cast<void>(test::park_until_interrupted()); });
      own->root().spawn([] { static_cast<void>(test::park_until_interrupted()); });
    }
    std::atomic<bool> alone{false};
    own->root().spawn(
        [&own_gone, &of_others, &alone, owner = own, theirs = std::move(others)]() mutable {
          of_others = theirs->stop();  // blocks this worker, and is allowed
          theirs.reset();
          while (!alone) this_fiber::yield();
          owner.reset();  // the last one: a thread ends the runtime when this fiber has ended
          own_gone.set_value();
        });
    own.reset();
    alone = true;
    own_gone.get_future().wait();
  }
  CHECK(of_others.ok());
  CHECK(test::process_use(before.threads).threads == before.threads);
}
