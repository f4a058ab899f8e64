// Allocation number k fails, for every k, in twenty pieces of work: nothing is lost, nothing hangs, the process
// lives, and the next attempt succeeds. A std::bad_alloc may come out of what was called, never out of a worker.
#include <weft/net.h>
#include <weft/runtime.h>
#include <weft/scope.h>
#include <weft/time.h>

#include <array>
#include <atomic>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>

#include "tests/faults/counted_new.h"
#include "tests/faults/echo_service.h"
#include "tests/faults/trial.h"

namespace weft {
namespace {

// ---- Pieces of work on a fiber. False: it was refused something, and said so.

bool spawn_and_join() {
  Scope scope;
  Fiber<int> child = scope.spawn([] { return 7; });
  const absl::StatusOr<int> value = child.join();
  return scope.join().ok() && value.ok() && *value == 7;
}

bool spawn_many() {
  Scope scope;
  for (int i = 0; i < 2000; ++i) scope.spawn([] {});  // the queue grows
  return scope.join().ok();
}

bool spawn_with_name_and_size() {
  Scope scope;
  Fiber<void> child = scope.spawn([] { this_fiber::yield(); },
                                  {.name = "small", .stack_size = 32 << 10, .pinned = true});
  return child.join().ok() && scope.join().ok();
}

bool spawn_with_large_closure() {
  Scope scope;
  const std::array<char, 5000> bytes{};
  Fiber<char> child = scope.spawn([bytes] { return bytes[17]; });
  return child.join().ok() && scope.join().ok();
}

bool spawn_with_owning_closure() {
  Scope scope;
  auto owned = std::make_unique<std::string>(100, 'x');
  Fiber<std::string> child = scope.spawn([owned = std::move(owned)] { return *owned; });
  const absl::StatusOr<std::string> value = child.join();
  return scope.join().ok() && value.ok() && value->size() == 100;
}

bool child_fails() {
  Scope scope;
  Fiber<absl::Status> child =
      scope.spawn([]() -> absl::Status { return absl::NotFoundError("a text of its own"); });
  const absl::Status status = child.join();
  return status.code() == absl::StatusCode::kNotFound && !scope.join().ok();
}

bool many_children_fail() {
  Scope scope({.on_error = OnError::kKeepGoing});
  for (int i = 0; i < 12; ++i) {
    scope.spawn([i]() -> absl::Status { return absl::DataLossError(std::to_string(i)); });
  }
  return scope.join().code() == absl::StatusCode::kDataLoss;
}

bool child_throws() {
  Scope scope;
  Fiber<void> child = scope.spawn([] { throw std::runtime_error("thrown by a child"); });
  try {
    static_cast<void>(child.join());
  } catch (const std::runtime_error&) {
    static_cast<void>(scope.join());
    return true;
  }
  static_cast<void>(scope.join());
  return false;
}

bool sleep_and_time_out() {
  const Timeout soon(absl::Milliseconds(1));
  return sleep_for(absl::InfiniteDuration()).code() == absl::StatusCode::kDeadlineExceeded;
}

bool scope_times_out() {
  Scope scope({.name = "short", .timeout = absl::Milliseconds(1)});
  scope.spawn([] { return sleep_for(absl::InfiniteDuration()); });
  return scope.join().code() == absl::StatusCode::kDeadlineExceeded;
}

bool cancel_siblings() {
  Scope scope;
  scope.spawn([] { return sleep_for(absl::InfiniteDuration()); });
  scope.spawn([]() -> absl::Status { return absl::AbortedError("no"); });
  return scope.join().code() == absl::StatusCode::kAborted;
}

bool nested_scopes() {
  Scope outer;
  outer.spawn([]() -> absl::Status {
    Scope inner;
    for (int i = 0; i < 10; ++i) inner.spawn([] { this_fiber::yield(); });
    return inner.join();
  });
  return outer.join().ok();
}

bool free_group() {
  FiberGroup group({.name = "free"});
  group.spawn([] { this_fiber::yield(); });
  return group.join().ok();
}

bool parse_addresses() {
  const bool good = SocketAddress::parse("[::1]:80").ok();
  return good && !SocketAddress::parse("not an address").ok();
}

bool bind_in_vain() {
  auto first = TcpListener::bind("127.0.0.1:0");
  if (!first.ok()) return false;
  return error_number(TcpListener::bind(first->local().to_string()).status()) == EADDRINUSE;
}

bool connect_in_vain() {
  std::string address;
  {
    auto gone = TcpListener::bind("127.0.0.1:0");
    if (!gone.ok()) return false;
    address = gone->local().to_string();
  }
  return error_number(TcpStream::connect(address).status()) == ECONNREFUSED;
}

bool serve_clients() {
  auto listener = TcpListener::bind("127.0.0.1:0");
  if (!listener.ok()) return false;
  const std::string address = listener->local().to_string();
  Scope scope({.on_error = OnError::kKeepGoing});
  auto close = [](TcpListener* open) { open->close(); };
  scope.spawn([listening = std::unique_ptr<TcpListener, decltype(close)>(&*listener)] {
    return serve(*listening, test::echo);
  });
  // Whatever happens to the clients, the listener is closed before its scope ends.
  const std::unique_ptr<TcpListener, decltype(close)> closes(&*listener);
  const bool first = test::talk(address, "one").ok();
  const bool second = test::talk(address, std::string(1000, 'x')).ok();
  listener->close();
  return scope.join().ok() && first && second;
}

// Connections that nobody takes yet wait in the listener.
bool accept_late() {
  auto listener = TcpListener::bind("127.0.0.1:0");
  if (!listener.ok()) return false;
  const std::string address = listener->local().to_string();
  auto first = TcpStream::connect(address);
  auto second = TcpStream::connect(address);
  if (!first.ok() || !second.ok()) return false;
  auto taken = listener->accept();
  auto other = listener->accept();
  return taken.ok() && other.ok();
}

// ---- And from a thread that is no fiber

bool start_and_stop() {
  Options options;
  options.workers = 2;
  options.prewarm = 2;
  options.handle_signals = false;
  options.log = [](LogLevel, std::string_view) {};
  auto runtime = Runtime::start(options);
  return runtime.ok() && (*runtime)->stop().ok();
}

bool run_a_body() {
  return weft::run([]() -> absl::Status { return absl::OkStatus(); },
                   {.workers = 1, .handle_signals = false}) == 0;
}

struct Work {
  const char* name;
  bool (*body)();
  bool on_fiber;
};

constexpr Work kWorks[] = {
    {"spawn_and_join", &spawn_and_join, true},
    {"spawn_many", &spawn_many, true},
    {"spawn_with_name_and_size", &spawn_with_name_and_size, true},
    {"spawn_with_large_closure", &spawn_with_large_closure, true},
    {"spawn_with_owning_closure", &spawn_with_owning_closure, true},
    {"child_fails", &child_fails, true},
    {"many_children_fail", &many_children_fail, true},
    {"child_throws", &child_throws, true},
    {"sleep_and_time_out", &sleep_and_time_out, true},
    {"scope_times_out", &scope_times_out, true},
    {"cancel_siblings", &cancel_siblings, true},
    {"nested_scopes", &nested_scopes, true},
    {"free_group", &free_group, true},
    {"parse_addresses", &parse_addresses, true},
    {"bind_in_vain", &bind_in_vain, true},
    {"connect_in_vain", &connect_in_vain, true},
    {"serve_clients", &serve_clients, true},
    {"accept_late", &accept_late, true},
    {"start_and_stop", &start_and_stop, false},
    {"run_a_body", &run_a_body, false},
};
static_assert(std::size(kWorks) == 20);

bool attempt(const Work& work) {
  try {
    return work.body();
  } catch (const std::bad_alloc&) {
    return false;  // the caller of spawn, join, bind, ... was told
  }
}

// Returns whether the fault was met; `done` says whether the work was.
bool attempt_with_fault(const Work& work, unsigned nth, unsigned repeat, bool& done) {
  test::fail_allocation(nth, repeat);
  done = attempt(work);
  return test::allocation_failed();
}

std::unique_ptr<Runtime> started() {
  Options options;
  options.workers = 2;
  options.handle_signals = false;
  options.log = [](LogLevel, std::string_view) {};
  auto runtime = Runtime::start(options);
  REQUIRE(runtime.ok());
  return *std::move(runtime);
}

// A runtime of its own for each attempt: what its parts hold on to ends with it, and can be counted.
bool try_once(const Work& work, unsigned nth, unsigned repeat, bool& done) {
  if (!work.on_fiber) return attempt_with_fault(work, nth, repeat, done);
  const std::unique_ptr<Runtime> runtime = started();
  bool met = false;
  const absl::Status ran =
      runtime->block_on([&] { met = attempt_with_fault(work, nth, repeat, done); });
  CHECK(ran.ok());
  return met;
}

void try_all(unsigned repeat) {
  test::Trying trying([] { test::allocation_failed(); });
  unsigned attempts = 0;
  for (const Work& work : kWorks) {
    bool done = false;
    try_once(work, ~0u - repeat, repeat, done);  // what is kept once is kept now
    INFO(work.name);
    REQUIRE(done);
    for (unsigned nth = 0;; ++nth, ++attempts) {
      trying.now({work.name, os::system::Call::kCount, 0}, nth);
      const test::ProcessUse before = test::process_use();
      const long alive = test::allocations_alive();
      const bool met = try_once(work, nth, repeat, done);
      const long left = test::allocations_alive() - alive;
      const test::ProcessUse after = test::process_use(before.threads);
      INFO("allocation " << nth);
      CHECK(left == 0);
      CHECK(after.threads <= before.threads);
      CHECK(after.descriptors == before.descriptors);
      test::services_ended.fetch_add(1);
      if (!met) {
        CHECK(done);
        break;
      }
    }
  }
  std::printf("%u attempts\n", attempts);
}

TEST_CASE("allocation fault: one that fails is survived", "[faults][K2]") { try_all(1); }

TEST_CASE("allocation fault: all that fail from then on are survived", "[faults][K2]") {
  try_all(1'000'000'000);
}

// More threads than there are records of earlier waits to be had again.
TEST_CASE("allocation fault: threads wait for fibers without memory", "[faults][K2]") {
  constexpr int kThreads = 4;
  test::Trying trying([] { test::allocation_failed(); });
  const std::unique_ptr<Runtime> runtime = started();
  std::atomic<bool> may_wait{false}, may_end{false};
  std::atomic<int> waiting{0}, joined{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, fiber = runtime->root().spawn([&] {
      while (!may_end) this_fiber::yield();
    })]() mutable {
      while (!may_wait) std::this_thread::yield();
      ++waiting;
      joined += fiber.join().ok() ? 1 : 0;
    });
  }
  test::fail_allocation(0, 1'000'000'000);
  may_wait = true;
  while (waiting < kThreads) std::this_thread::yield();
  may_end = true;
  for (std::thread& thread : threads) thread.join();
  CHECK(test::allocation_failed());  // a thread that found its fiber ended would prove nothing
  CHECK(joined == kThreads);
}

}  // namespace
}  // namespace weft
