// serve(): drained without a cut reply, limited, and not ended by any one connection.
#include <weft/net.h>
#include <weft/runtime.h>
#include <weft/scope.h>
#include <weft/time.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include <catch2/catch.hpp>

#include "tests/io/loopback.h"

namespace weft {
namespace {

using absl::StatusCode;

// A runtime that keeps what it logs.
struct Host {
  explicit Host(int workers) {
    Options options;
    options.workers = workers;
    options.log = [this](LogLevel, std::string_view text) {
      const std::lock_guard hold(mutex);
      lines.emplace_back(text);
    };
    auto started = Runtime::start(options);
    REQUIRE(started.ok());
    runtime = *std::move(started);
  }
  ~Host() {
    const absl::Status stopped = runtime->stop();
    INFO(stopped.ToString());
    CHECK(stopped.ok());
  }
  std::vector<std::string> logged() {
    const std::lock_guard hold(mutex);
    return lines;
  }

  std::mutex mutex;
  std::vector<std::string> lines;
  std::unique_ptr<Runtime> runtime;
};

constexpr std::size_t kMessage = 100;

struct EchoCount {
  std::atomic<std::uint64_t> bytes{0};  // whose write has ended well
  absl::Status operator()(TcpStream& stream) {
    std::array<std::byte, 4096> buffer;
    EndOnDrain end;
    while (true) {
      auto n = stream.read(buffer);
      if (!n.ok() || *n == 0) return n.status();
      if (auto s = stream.write_all(std::span(buffer).first(*n)); !s.ok()) return s;
      bytes += *n;
    }
  }
};

struct ClientTally {
  std::atomic<std::uint64_t> answered{0};  // clients that got at least one reply
  std::atomic<std::uint64_t> bytes{0};
  std::atomic<int> ended{0};
  std::atomic<int> cut{0};  // an end in the middle of a reply
  std::atomic<int> resets{0};
};

// Asks until the server ends the connection.
void ask_for_ever(const std::string& where, ClientTally& tally) {
  auto stream = TcpStream::connect(where);
  if (!stream.ok()) return;
  std::array<char, kMessage> message, reply;
  message.fill('m');
  for (bool first = true; stream->write_all(message).ok(); first = false) {
    std::size_t have = 0;
    while (have < kMessage) {
      auto n = stream->read(std::span(reply).subspan(have));
      tally.resets += !n.ok();
      if (n.value_or(0) == 0) break;
      have += *n;
    }
    tally.bytes += have;
    if (have < kMessage) {
      tally.cut += have != 0;
      break;
    }
    if (first) ++tally.answered;
  }
  ++tally.ended;
}

TEST_CASE("serve: a drain under full load loses and cuts no reply", "[serve][F16]") {
  const int workers = GENERATE(1, 2);
  constexpr int kClients = 100;
  test::TimeLimit time_limit(120);
  Host server(workers);
  auto listener = TcpListener::bind("127.0.0.1:0");
  REQUIRE(listener.ok());
  const std::string where = listener->local().to_string();
  EchoCount echo;
  ClientTally tally;
  auto serving = server.runtime->root().spawn([&] { return serve(*listener, std::ref(echo)); });
  {
    Host clients(1);
    auto all = clients.runtime->root().spawn([&] {
      Scope scope;
      for (int i = 0; i < kClients; ++i) scope.spawn([&] { ask_for_ever(where, tally); });
      return scope.join();
    });
    while (tally.answered < kClients) sched_yield();
    const std::uint64_t before = echo.bytes;
    while (echo.bytes < before + 1000 * kMessage) sched_yield();
    server.runtime->drain();
    CHECK(all.join().ok());
  }
  const absl::Status served = serving.join();
  CHECK(served.ok());
  CHECK(tally.ended == kClients);
  CHECK(tally.cut == 0);
  CHECK(tally.resets == 0);
  CHECK(tally.bytes == echo.bytes);
  REQUIRE_FALSE(server.logged().empty());
  CHECK(server.logged().back() == "serve: drained " + std::to_string(kClients) + " connections");
  CHECK(test::settled(*server.runtime));
}

TEST_CASE("serve: an idle connection does not hold up a drain, one that must be waited for does",
          "[serve]") {
  test::TimeLimit time_limit(60);
  absl::Status idle, again, with_data, after_data, without;
  std::atomic<int> parked{0};
  Host host(2);
  test::SocketPair pair = test::tcp_pair();
  test::SocketPair patient = test::tcp_pair();
  TcpStream stream = TcpStream::adopt(pair.take(0));
  TcpStream other = TcpStream::adopt(patient.take(0));
  auto& root = host.runtime->root();
  auto ends = root.spawn([&] {
    std::array<char, 8> buffer;
    EndOnDrain end;
    ++parked;
    idle = stream.read(buffer).status();
    again = stream.read(buffer).status();
    static_cast<void>(send(pair.fd(1), "x", 1, MSG_NOSIGNAL));
    with_data = stream.read(buffer).status();
    after_data = stream.read(buffer).status();
  });
  auto waits = root.spawn([&] {
    std::array<char, 8> buffer;
    ++parked;
    without = other.read(buffer).status();
  });
  while (parked < 2) sched_yield();
  host.runtime->drain();
  CHECK(ends.join().ok());
  CHECK_FALSE(waits.done());
  REQUIRE(send(patient.fd(1), "y", 1, MSG_NOSIGNAL) == 1);
  CHECK(waits.join().ok());
  CHECK(idle.code() == StatusCode::kCancelled);
  CHECK(again.code() == StatusCode::kCancelled);
  CHECK(with_data.ok());
  CHECK(after_data.code() == StatusCode::kCancelled);
  CHECK(without.ok());
}

TEST_CASE("serve: a drain does not end a read_exactly that has consumed something", "[serve]") {
  test::TimeLimit time_limit(60);
  absl::Status torn = absl::UnknownError(""), next;
  std::array<char, 8> buffer{};
  Host host(1);
  test::SocketPair pair = test::tcp_pair();
  TcpStream stream = TcpStream::adopt(pair.take(0));
  std::atomic<bool> began{false};
  REQUIRE(send(pair.fd(1), "1234", 4, MSG_NOSIGNAL) == 4);
  auto reads = host.runtime->root().spawn([&] {
    EndOnDrain end;
    began = true;
    torn = stream.read_exactly(buffer);
    next = stream.read_exactly(buffer);
  });
  while (!began) sched_yield();
  // The first half has been consumed when the socket is empty.
  char byte;
  while (recv(stream.fd(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 1) sched_yield();
  host.runtime->drain();
  REQUIRE(send(pair.fd(1), "5678", 4, MSG_NOSIGNAL) == 4);
  CHECK(reads.join().ok());
  CHECK(torn.ok());
  CHECK(std::string(buffer.data(), buffer.size()) == "12345678");
  CHECK(next.code() == StatusCode::kCancelled);
}

// Connects, and reads to the end.
std::string ask_once(const std::string& where) {
  auto stream = TcpStream::connect(where);
  if (!stream.ok()) return "no connection";
  std::string all;
  std::array<char, 100> buffer;
  while (auto n = stream->read(buffer).value_or(0)) all.append(buffer.data(), n);
  return all;
}

TEST_CASE("serve: an error or an exception of a handler ends its connection alone", "[serve]") {
  const int workers = GENERATE(1, 2);
  test::TimeLimit time_limit(60);
  Host host(workers);
  std::vector<std::string> answers;
  absl::Status served;
  const auto body = [&]() -> absl::Status {
    auto listener = TcpListener::bind("127.0.0.1:0");
    if (!listener.ok()) return listener.status();
    const std::string where = listener->local().to_string();
    std::atomic<int> number{0};
    FiberGroup group({.on_error = OnError::kKeepGoing});
    auto serving = group.spawn([&] {
      return serve(*listener, [&number](TcpStream& stream) -> absl::Status {
        switch (++number) {
          case 1:
            return absl::InternalError("on purpose");
          case 2:
            throw std::runtime_error("on purpose");
          case 3:
            throw 3;
          default:
            return stream.write_all("well");
        }
      });
    });
    for (int i = 0; i < 4; ++i) answers.push_back(ask_once(where));
    listener->close();
    served = serving.join();
    return absl::OkStatus();
  };
  CHECK(host.runtime->block_on(body).ok());
  CHECK(served.ok());
  CHECK(answers == std::vector<std::string>{"", "", "", "well"});
  // The first at once, the others within the same second as a number.
  REQUIRE(host.logged().size() >= 1);
  CHECK(host.logged()[0].find("serve: a connection ended: INTERNAL: on purpose") == 0);
  CHECK(host.logged().size() <= 3);
}

TEST_CASE("serve: at the limit clients wait, none is dropped and all are served", "[serve]") {
  const int workers = GENERATE(1, 2);
  constexpr int kClients = 50;
  constexpr std::size_t kLimit = 3;
  test::TimeLimit time_limit(60);
  Host host(workers);
  std::atomic<int> now{0};
  std::atomic<int> most{0};
  std::atomic<int> well{0};
  absl::Status served;
  const auto body = [&]() -> absl::Status {
    auto listener = TcpListener::bind("127.0.0.1:0");
    if (!listener.ok()) return listener.status();
    const std::string where = listener->local().to_string();
    FiberGroup group;
    auto serving = group.spawn([&] {
      return serve(*listener,
                   [&](TcpStream& stream) {
                     const int mine = ++now;
                     int seen = most;
                     while (mine > seen && !most.compare_exchange_weak(seen, mine)) {
                     }
                     for (int i = 0; i < 20; ++i) this_fiber::yield();
                     const absl::Status status = stream.write_all("well");
                     --now;
                     return status;
                   },
                   {.max_connections = kLimit});
    });
    Scope scope;
    for (int i = 0; i < kClients; ++i) {
      scope.spawn([&] { well += ask_once(where) == "well"; });
    }
    const absl::Status asked = scope.join();
    listener->close();
    served = serving.join();
    return asked;
  };
  CHECK(host.runtime->block_on(body).ok());
  CHECK(served.ok());
  CHECK(well == kClients);
  CHECK(most >= 1);
  CHECK(most <= static_cast<int>(kLimit));
}

TEST_CASE("serve: cancelled it ends its connections and says kCancelled", "[serve]") {
  const int workers = GENERATE(1, 2);
  test::TimeLimit time_limit(60);
  Host host(workers);
  StatusCode served{}, handler{};
  std::string answer = "unset";
  const auto body = [&]() -> absl::Status {
    auto listener = TcpListener::bind("127.0.0.1:0");
    if (!listener.ok()) return listener.status();
    std::atomic<bool> reading{false};
    FiberGroup group({.on_error = OnError::kKeepGoing});
    auto serving = group.spawn([&] {
      return serve(*listener, [&](TcpStream& stream) {
        std::array<char, 8> buffer;
        reading = true;
        const absl::Status status = stream.read(buffer).status();
        handler = status.code();
        return status;
      });
    });
    Scope scope;
    scope.spawn([&, where = listener->local().to_string()] { answer = ask_once(where); });
    while (!reading) this_fiber::yield();
    group.cancel();
    served = serving.join().code();
    return scope.join();
  };
  CHECK(host.runtime->block_on(body).ok());
  CHECK(served == StatusCode::kCancelled);
  CHECK(handler == StatusCode::kCancelled);
  CHECK(answer.empty());
  CHECK(host.logged().empty());
}

TEST_CASE("serve: two that share a listener share its connections", "[serve]") {
  test::TimeLimit time_limit(60);
  Host host(2);
  int well = 0;
  absl::Status first, second;
  const auto body = [&]() -> absl::Status {
    auto listener = TcpListener::bind("127.0.0.1:0");
    if (!listener.ok()) return listener.status();
    const auto handler = [](TcpStream& stream) { return stream.write_all("well"); };
    FiberGroup group;
    auto one = group.spawn([&] { return serve(*listener, handler, {.max_connections = 1}); });
    auto two = group.spawn([&] { return serve(*listener, handler, {.max_connections = 1}); });
    for (int i = 0; i < 200; ++i) well += ask_once(listener->local().to_string()) == "well";
    listener->close();
    first = one.join();
    second = two.join();
    return absl::OkStatus();
  };
  CHECK(host.runtime->block_on(body).ok());
  CHECK(well == 200);
  CHECK(first.ok());
  CHECK(second.ok());
}

}  // namespace
}  // namespace weft
