// Closing: what becomes of the operations that are in flight, and of the descriptor's number.
#include <weft/net.h>
#include <weft/runtime.h>
#include <weft/scope.h>
#include <weft/time.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <optional>
#include <vector>

#include <catch2/catch.hpp>

#include "tests/io/loopback.h"
#include "tests/support/proc.h"
#include "tests/support/random.h"
#include "tests/support/sanitizer.h"

namespace weft {
namespace {

int rounds_of(int normal, int soak) {
  const int rounds = test::soaking() ? soak : normal;
  return test::kAddressSanitizer || test::kThreadSanitizer ? rounds / 4 : rounds;
}

bool says_closed(const absl::Status& status) { return status.code() == absl::StatusCode::kAborted; }

// Fills the socket until a write has to wait, and goes on writing.
absl::Status write_for_ever(TcpStream& stream) {
  static const std::vector<char> block(256 << 10, 'w');
  while (true) {
    if (auto written = stream.write(block); !written.ok()) return written.status();
  }
}

struct Tally {
  int closed = 0;
  int peers_ended = 0;
  int wrong = 0;
};

// One round: fibers read, or write, one end; another fiber closes it at some moment of that.
template <class Use>
Tally close_in_use(int workers, int rounds, Use use) {
  Tally tally;
  test::in_runtime(workers, [&] {
    test::Random random(test::seed());
    for (int round = 0; round < rounds; ++round) {
      test::SocketPair pair = test::tcp_pair();
      if (!pair.ok()) return;
      TcpStream stream = TcpStream::adopt(pair.take(0));
      Scope scope({.on_error = OnError::kKeepGoing});
      auto user = scope.spawn([&] { return use(stream); });
      for (std::uint64_t n = random.below(4); n > 0; --n) this_fiber::yield();
      stream.close();
      const absl::Status status = user.join();
      (says_closed(status) ? tally.closed : tally.wrong) += 1;
      tally.peers_ended += test::peer_sees_the_end(pair.fd(1));
      static_cast<void>(scope.join());  // says the user's error again
    }
  });
  return tally;
}

TEST_CASE("close: a read in flight ends with kAborted, and the peer sees the end", "[close][F1]") {
  const int workers = GENERATE(1, 2);
  test::TimeLimit time_limit(240);
  const int rounds = rounds_of(2'000, 10'000);
  const long before = test::entries("/proc/self/fd");
  const Tally tally = close_in_use(workers, rounds, [](TcpStream& stream) -> absl::Status {
    std::array<char, 100> buffer;
    return stream.read(buffer).status();
  });
  CHECK(tally.closed == rounds);
  CHECK(tally.wrong == 0);
  CHECK(tally.peers_ended == rounds);
  CHECK(test::entries("/proc/self/fd") == before);
}

TEST_CASE("close: a write in flight ends with kAborted, and the peer sees the end", "[close][F1]") {
  const int workers = GENERATE(1, 2);
  test::TimeLimit time_limit(240);
  const int rounds = rounds_of(300, 10'000);
  const Tally tally = close_in_use(workers, rounds, &write_for_ever);
  CHECK(tally.closed == rounds);
  CHECK(tally.wrong == 0);
  CHECK(tally.peers_ended == rounds);
}

TEST_CASE("close: a reader and a writer at once both end with kAborted", "[close][F1]") {
  const int workers = GENERATE(1, 2);
  test::TimeLimit time_limit(240);
  const int rounds = rounds_of(200, 10'000);
  int both = 0;
  test::in_runtime(workers, [&] {
    for (int round = 0; round < rounds; ++round) {
      test::SocketPair pair = test::tcp_pair();
      TcpStream stream = TcpStream::adopt(pair.take(0));
      Scope scope({.on_error = OnError::kKeepGoing});
      auto reader = scope.spawn([&] {
        std::array<char, 10> buffer;
        return stream.read(buffer).status();
      });
      auto writer = scope.spawn([&] { return write_for_ever(stream); });
      for (int i = 0; i < round % 4; ++i) this_fiber::yield();
      stream.close();
      both += says_closed(reader.join()) && says_closed(writer.join());
      static_cast<void>(scope.join());
    }
  });
  CHECK(both == rounds);
}

// What a server does that ends a connection of its own: a registry closes the stream, the handler finds out
// and closes it too.
TEST_CASE("close: the reader may close as well, as soon as it has heard of it", "[close][F1]") {
  const int workers = GENERATE(1, 2);
  test::TimeLimit time_limit(240);
  const int rounds = rounds_of(2'000, 20'000);
  const long before = test::entries("/proc/self/fd");
  int heard = 0;
  test::in_runtime(workers, [&] {
    for (int round = 0; round < rounds; ++round) {
      test::SocketPair pair = test::tcp_pair();
      TcpStream stream = TcpStream::adopt(pair.take(0));
      Scope scope;
      auto reader = scope.spawn([&] {
        std::array<char, 10> buffer;
        const absl::Status status = stream.read(buffer).status();
        stream.close();
        return says_closed(status);
      });
      this_fiber::yield();
      scope.spawn([&] { stream.close(); });
      stream.close();
      const auto said = reader.join();
      heard += said.ok() && *said;
    }
  });
  CHECK(heard == rounds);
  CHECK(test::entries("/proc/self/fd") == before);
}

TEST_CASE("close: a foreign thread closes under a reader", "[close][F1]") {
  test::TimeLimit time_limit(240);
  const int rounds = rounds_of(300, 5'000);
  Options options;
  options.workers = 2;
  options.handle_signals = false;
  auto runtime = Runtime::start(options);
  REQUIRE(runtime.ok());
  int closed = 0;
  for (int round = 0; round < rounds; ++round) {
    test::SocketPair pair = test::tcp_pair();
    TcpStream stream = TcpStream::adopt(pair.take(0));
    std::atomic<bool> started{false};
    auto reader = (*runtime)->root().spawn([&]() -> int {
      std::array<char, 10> buffer;
      started = true;
      return says_closed(stream.read(buffer).status()) ? 1 : 0;
    });
    if (round % 2 == 0) {
      while (!started) sched_yield();
    }
    stream.close();
    const auto said = reader.join();
    closed += said.ok() ? *said : 0;
  }
  CHECK(closed == rounds);
  CHECK(test::settled(**runtime));
}

TEST_CASE("close: a connect in flight is cancelled, and its descriptor closed", "[close][F1]") {
  const int workers = GENERATE(1, 2);
  test::TimeLimit time_limit(240);
  const int rounds = rounds_of(200, 10'000);
  const long before = test::entries("/proc/self/fd");
  // A full backlog: the kernel answers no further connect.
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  REQUIRE(bind(listener, reinterpret_cast<sockaddr*>(&address), length) == 0);
  REQUIRE(listen(listener, 0) == 0);
  getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length);
  const std::string where = SocketAddress::from(&address, length).to_string();
  const int first = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  REQUIRE(connect(first, reinterpret_cast<sockaddr*>(&address), length) == 0);
  int cancelled = 0;
  int connected = 0;
  test::in_runtime(workers, [&] {
    for (int round = 0; round < rounds; ++round) {
      FiberGroup group({.on_error = OnError::kKeepGoing});
      auto connecting = group.spawn([&] { return TcpStream::connect(where).status(); });
      for (int i = 0; i < round % 4; ++i) this_fiber::yield();
      group.cancel();
      const absl::Status status = connecting.join();
      cancelled += status.code() == absl::StatusCode::kCancelled;
      connected += status.ok();
    }
  });
  ::close(first);
  ::close(listener);
  CHECK(cancelled + connected == rounds);
  CHECK(cancelled > 0);
  CHECK(test::entries("/proc/self/fd") == before);
}

// The number of a closed descriptor is given to the next connection at once. Each connection carries its own
// letter, and nobody ever reads another one.
TEST_CASE("close: no byte goes to the next connection of the same number", "[close][F2]") {
  const int workers = GENERATE(1, 2);
  test::TimeLimit time_limit(240);
  const int rounds = rounds_of(5'000, 100'000);
  int crossed = 0;
  int same_number = 0;
  int answered = 0;
  test::in_runtime(workers, [&] {
    test::Random random(test::seed());
    std::optional<test::SocketPair> next(test::tcp_pair());
    for (int round = 0; round < rounds; ++round) {
      const char letter = static_cast<char>('a' + round % 26);
      test::SocketPair pair = *std::move(next);
      const int number = pair.fd(0);
      TcpStream stream = TcpStream::adopt(pair.take(0));
      std::array<char, 16> late;  // where an operation that outlives its connection would write
      late.fill(0);
      Scope scope;
      auto reader = scope.spawn([&]() -> int {
        auto n = stream.read(late);
        return n.ok() ? static_cast<int>(*n) : 0;
      });
      for (std::uint64_t n = random.below(3); n > 0; --n) this_fiber::yield();
      stream.close();
      next.emplace(test::tcp_pair());
      same_number += next->fd(0) == number || next->fd(1) == number;
      const std::array<char, 4> text = {letter, letter, letter, letter};
      send(next->fd(1), text.data(), text.size(), MSG_NOSIGNAL);
      for (std::uint64_t n = random.below(3); n > 0; --n) this_fiber::yield();
      static_cast<void>(reader.join());
      crossed += std::count_if(late.begin(), late.end(), [](char c) { return c != 0; }) != 0;
      std::array<char, 16> got;
      answered +=
          recv(next->fd(0), got.data(), got.size(), 0) == 4 && got[0] == letter && got[3] == letter;
    }
  });
  CHECK(crossed == 0);
  CHECK(answered == rounds);
  CHECK(same_number > rounds / 2);  // otherwise nothing was tried
}

}  // namespace
}  // namespace weft
