// TcpListener: who gets a connection, what ends accept(), and that no connection is lost.
#include <weft/net.h>
#include <weft/runtime.h>
#include <weft/scope.h>
#include <weft/time.h>

#include <atomic>
#include <cstdio>
#include <vector>

#include <catch2/catch.hpp>

#include "runtime/sched/core.h"
#include "runtime/sched/worker.h"
#include "tests/io/loopback.h"
#include "tests/support/on_fiber.h"
#include "tests/support/proc.h"
#include "tests/support/random.h"

namespace weft {
namespace {

TcpListener bound() {
  auto listener = TcpListener::bind("127.0.0.1:0");
  REQUIRE(listener.ok());
  return *std::move(listener);
}

TEST_CASE("listener: several fibers in accept() get one connection each", "[listener]") {
  const int workers = GENERATE(1, 2, 4);
  test::TimeLimit time_limit(120);
  TcpListener listener = bound();
  std::atomic<int> accepted{0};
  std::vector<int> clients;
  test::in_runtime(workers, [&] {
    Scope scope;
    for (int i = 0; i < 8; ++i) {
      scope.spawn([&] {
        auto stream = listener.accept();
        if (stream.ok() && stream->write_all("x").ok()) ++accepted;
      });
    }
    for (int i = 0; i < 8; ++i) {
      clients.push_back(test::connect_to(listener.local()));
      this_fiber::yield();
    }
    if (!scope.join().ok()) accepted = -1;
    listener.close();
  });
  CHECK(accepted == 8);
  for (int fd : clients) {
    char byte = 0;
    CHECK(recv(fd, &byte, 1, 0) == 1);
    ::close(fd);
  }
}

TEST_CASE("listener: accept() is ended by close, cancellation and deadline", "[listener]") {
  const int workers = GENERATE(1, 2);
  test::TimeLimit time_limit(120);
  TcpListener listener = bound();
  absl::Status timed, cancelled, closed, after;
  test::in_runtime(workers, [&] {
    {
      Timeout limit(absl::Milliseconds(1));
      timed = listener.accept().status();
    }
    {
      FiberGroup group({.on_error = OnError::kKeepGoing});
      auto waiting = group.spawn([&] { return listener.accept().status(); });
      this_fiber::yield();
      group.cancel();
      cancelled = waiting.join();
      static_cast<void>(group.join());
    }
    Scope scope({.on_error = OnError::kKeepGoing});
    auto waiting = scope.spawn([&] { return listener.accept().status(); });
    this_fiber::yield();
    listener.close();
    closed = waiting.join();
    static_cast<void>(scope.join());
    after = listener.accept().status();
  });
  CHECK(timed.code() == absl::StatusCode::kDeadlineExceeded);
  CHECK(cancelled.code() == absl::StatusCode::kCancelled);
  CHECK(closed.code() == absl::StatusCode::kAborted);
  CHECK(after.code() == absl::StatusCode::kAborted);
}

TEST_CASE("listener: a connection that arrives while it is closed is handed out or closed",
          "[listener][F1]") {
  test::TimeLimit time_limit(240);
  const long before = test::entries("/proc/self/fd");
  const int rounds = test::soaking() ? 20'000 : 1'000;
  int served = 0;
  int ended = 0;
  test::in_runtime(2, [&] {
    test::Random random(7);
    for (int round = 0; round < rounds; ++round) {
      auto listener = TcpListener::bind("127.0.0.1:0");
      if (!listener.ok()) return;
      const SocketAddress address = listener->local();
      Scope scope;
      auto accepting = scope.spawn([&] {
        while (true) {
          auto stream = listener->accept();
          if (!stream.ok()) return;
          ++served;
        }
      });
      this_fiber::yield();
      std::vector<int> clients;
      for (std::uint64_t n = 1 + random.below(3); n > 0; --n)
        clients.push_back(test::connect_to(address));
      for (std::uint64_t n = random.below(4); n > 0; --n) this_fiber::yield();
      listener->close();
      if (!scope.join().ok()) return;
      for (int fd : clients) {
        if (fd < 0) continue;
        ended += test::peer_sees_the_end(fd);
        ::close(fd);
      }
    }
  });
  CHECK(ended >= rounds);
  CHECK(test::entries("/proc/self/fd") == before);
  std::printf("served %d of %d connections, the others were closed\n", served, ended);
}

TEST_CASE("listener: close() from two fibers at once closes once", "[listener][F1]") {
  test::TimeLimit time_limit(120);
  const long before = test::entries("/proc/self/fd");
  test::in_runtime(2, [&] {
    for (int round = 0; round < 300; ++round) {
      auto listener = TcpListener::bind("127.0.0.1:0");
      if (!listener.ok()) return;
      Scope scope;
      scope.spawn([&] { static_cast<void>(listener->accept()); });
      this_fiber::yield();
      for (int i = 0; i < 3; ++i) scope.spawn([&] { listener->close(); });
      if (!scope.join().ok()) return;
    }
  });
  CHECK(test::entries("/proc/self/fd") == before);
}

TEST_CASE("listener: one that outlives its runtime can be closed, or used in another",
          "[listener]") {
  test::TimeLimit time_limit(60);
  TcpListener listener = bound();
  for (int round = 0; round < 2; ++round) {
    absl::Status first, second;
    int client = -1;
    Options options;
    options.workers = 2;
    auto runtime = Runtime::start(options);
    REQUIRE(runtime.ok());
    const absl::Status ran = (*runtime)->block_on([&] {
      client = test::connect_to(listener.local());
      first = listener.accept().status();
      Timeout soon(absl::Milliseconds(1));
      second = listener.accept().status();  // leaves the operation armed
    });
    CHECK(ran.ok());
    CHECK(first.ok());
    CHECK(second.code() == absl::StatusCode::kDeadlineExceeded);
    CHECK((*runtime)->stop().ok());
    ::close(client);
  }
  listener.close();
}

TEST_CASE("listener: what nobody takes is bounded, and served later", "[listener][F7]") {
  const int workers = GENERATE(1, 2);
  test::TimeLimit time_limit(120);
  constexpr int kClients = 300;
  constexpr int kWaitingMax = 64;
  TcpListener listener = bound();
  std::vector<int> clients;
  int served = 0;
  long opened_at_the_end = 0;
  long opened_later = 0;
  test::in_runtime(workers, [&] {
    const auto connect_more = [&](int count) {
      for (int i = 0; i < count; ++i) {
        clients.push_back(test::connect_to(listener.local()));
        this_fiber::yield();
      }
    };
    connect_more(1);
    if (listener.accept().ok()) ++served;  // arms the operation
    const long before = test::entries("/proc/self/fd") - 1;
    const auto opened = [&] {
      return test::entries("/proc/self/fd") - before - static_cast<long>(clients.size());
    };
    // The kernel may hand over all that has come before it hears that it should stop. When it has heard,
    // the operation has ended, and it is the only one.
    connect_more(kWaitingMax + 32);
    const sched::Core& core = sched::current_worker()->core();
    test::yield_until([&] { return opened() >= kWaitingMax && core.metrics().operations == 0; });
    opened_at_the_end = opened();
    connect_more(kClients - static_cast<int>(clients.size()));
    opened_later = opened();
    while (served < kClients && listener.accept().ok()) ++served;
    listener.close();
  });
  for (int fd : clients) ::close(fd);
  CHECK(served == kClients);
  CHECK(opened_at_the_end >= kWaitingMax);
  CHECK(opened_later == opened_at_the_end);
}

}  // namespace
}  // namespace weft
