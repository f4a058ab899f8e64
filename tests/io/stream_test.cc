// TcpStream: reading and writing, ends and half-ends, what is refused, and what errors say.
#include <weft/net.h>
#include <weft/runtime.h>
#include <weft/scope.h>
#include <weft/time.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <string>
#include <vector>

#include <catch2/catch.hpp>

#include "tests/io/loopback.h"
#include "tests/support/random.h"

namespace weft {
namespace {

using absl::StatusCode;

struct Ends {
  explicit Ends(test::SocketPair pair)
      : a(TcpStream::adopt(pair.take(0))), b(TcpStream::adopt(pair.take(1))) {}
  TcpStream a, b;
};

std::vector<std::uint8_t> noise(std::size_t bytes) {
  test::Random random(test::seed());
  std::vector<std::uint8_t> made(bytes);
  for (auto& byte : made) byte = static_cast<std::uint8_t>(random.next());
  return made;
}

TEST_CASE("stream: read gives what is there, and 0 at the end", "[stream]") {
  const int workers = GENERATE(1, 2);
  test::TimeLimit time_limit(60);
  std::size_t first = 0, at_end = 1, again = 1;
  std::string text(20, '\0');
  bool knew_before = true, knows = false;
  test::in_runtime(workers, [&] {
    Ends ends(test::tcp_pair());
    if (!ends.a.write_all("hello").ok()) return;
    first = ends.b.read(text).value_or(99);
    knew_before = ends.b.at_end();
    ends.a.close();
    std::array<char, 4> buffer;
    at_end = ends.b.read(buffer).value_or(99);
    again = ends.b.read(buffer).value_or(99);
    knows = ends.b.at_end();
  });
  CHECK(first == 5);
  CHECK(text.substr(0, 5) == "hello");
  CHECK(at_end == 0);
  CHECK(again == 0);
  CHECK_FALSE(knew_before);
  CHECK(knows);
}

TEST_CASE("stream: write_all and read_exactly carry megabytes both ways at once", "[stream][F9]") {
  const int workers = GENERATE(1, 2);
  test::TimeLimit time_limit(120);
  const std::vector<std::uint8_t> there = noise(5'000'000);
  std::vector<std::uint8_t> back(there.rbegin(), there.rend());
  std::vector<std::uint8_t> got_there(there.size()), got_back(back.size());
  absl::Status status;
  test::in_runtime(workers, [&] {
    Ends ends(test::tcp_pair());
    Scope scope;
    scope.spawn([&] { return ends.a.write_all(there); });
    scope.spawn([&] { return ends.b.write_all(back); });
    scope.spawn([&] { return ends.a.read_exactly(got_back); });
    scope.spawn([&] { return ends.b.read_exactly(got_there); });
    status = scope.join();
  });
  CHECK(status.ok());
  CHECK(got_there == there);
  CHECK(got_back == back);
}

TEST_CASE("stream: read_exactly at an early end is_closed()", "[stream]") {
  test::TimeLimit time_limit(60);
  absl::Status status;
  test::in_runtime(1, [&] {
    Ends ends(test::tcp_pair());
    if (!ends.a.write_all("abc").ok()) return;
    ends.a.close();
    std::array<char, 4> buffer;
    status = ends.b.read_exactly(buffer);
  });
  CHECK(status.code() == StatusCode::kOutOfRange);
  CHECK(is_closed(status));
}

TEST_CASE("stream: an empty buffer is refused and no end of the stream", "[stream]") {
  test::TimeLimit time_limit(60);
  absl::Status read, write, all, exactly;
  test::in_runtime(1, [&] {
    Ends ends(test::tcp_pair());
    read = ends.a.read(MutableBytes()).status();
    write = ends.a.write(Bytes()).status();
    all = ends.a.write_all(Bytes());
    exactly = ends.a.read_exactly(MutableBytes());
  });
  CHECK(read.code() == StatusCode::kInvalidArgument);
  CHECK(write.code() == StatusCode::kInvalidArgument);
  CHECK(all.ok());  // nothing to do is done
  CHECK(exactly.ok());
}

// Which of the two is first does not matter, so each tries until it is; a refusal disturbs nobody.
template <class Try>
absl::Status insist(Try once) {
  while (true) {
    const absl::Status status = once();
    if (status.code() != StatusCode::kFailedPrecondition) return status;
    this_fiber::yield();
  }
}

TEST_CASE("stream: a second reader gets kFailedPrecondition", "[stream]") {
  const int workers = GENERATE(1, 2);
  test::TimeLimit time_limit(60);
  absl::Status first, second;
  test::in_runtime(workers, [&] {
    Ends ends(test::tcp_pair());
    Scope scope({.on_error = OnError::kKeepGoing});
    auto reader = scope.spawn([&] {
      std::array<char, 1> buffer;
      return insist([&] { return ends.a.read(buffer).status(); });
    });
    while (second.code() != StatusCode::kFailedPrecondition) {
      Timeout soon(absl::Milliseconds(1));
      std::array<char, 1> buffer;
      second = ends.a.read(buffer).status();
      for (int i = 0; i < 3; ++i) this_fiber::yield();  // the other one's chance
    }
    if (ends.b.write_all("!").ok()) first = reader.join();
  });
  CHECK(second.code() == StatusCode::kFailedPrecondition);
  CHECK(second.message() == "read: another fiber does the same on this stream");
  CHECK(first.ok());
}

TEST_CASE("stream: a second writer gets kFailedPrecondition", "[stream]") {
  const int workers = GENERATE(1, 2);
  test::TimeLimit time_limit(60);
  absl::Status first, second;
  std::size_t written = 0, extra = 0, received = 0;
  test::in_runtime(workers, [&] {
    Ends ends(test::tcp_pair());
    const std::vector<char> much(8 << 20, 'm');
    Scope scope({.on_error = OnError::kKeepGoing});
    auto writer = scope.spawn([&]() -> absl::Status {
      while (written < much.size()) {
        const absl::Status status = insist([&] {
          auto n = ends.a.write(std::span(much).subspan(written));
          written += n.value_or(0);
          return n.status();
        });
        if (!status.ok()) return status;
      }
      return absl::OkStatus();
    });
    while (second.ok()) {
      second = ends.a.write("x").status();
      extra += second.ok();
      this_fiber::yield();
    }
    scope.spawn([&] {
      std::vector<char> got(1 << 20);
      while (auto n = ends.b.read(got).value_or(0)) received += n;
    });
    first = writer.join();
    ends.a.close();
    static_cast<void>(scope.join());
  });
  CHECK(second.code() == StatusCode::kFailedPrecondition);
  CHECK(first.ok());
  CHECK(written == std::size_t{8 << 20});
  CHECK(received == written + extra);
}

TEST_CASE("stream: after shutdown_write the peer sees the end and can still answer", "[stream]") {
  const int workers = GENERATE(1, 2);
  test::TimeLimit time_limit(60);
  std::string question, answer;
  absl::Status late_write, closed;
  test::in_runtime(workers, [&] {
    Ends ends(test::tcp_pair());
    Scope scope;
    scope.spawn([&]() -> absl::Status {
      std::array<char, 100> buffer;
      while (true) {
        auto n = ends.b.read(buffer);
        if (!n.ok()) return n.status();
        if (*n == 0) break;
        question.append(buffer.data(), *n);
      }
      if (auto s = ends.b.write_all("answer"); !s.ok()) return s;
      return ends.b.shutdown_write();
    });
    if (!ends.a.write_all("question").ok() || !ends.a.shutdown_write().ok()) return;
    late_write = ends.a.write_all("more");
    std::array<char, 100> buffer;
    while (auto n = ends.a.read(buffer).value_or(0)) answer.append(buffer.data(), n);
    static_cast<void>(scope.join());
    ends.a.close();
    closed = ends.a.shutdown_write();
  });
  CHECK(question == "question");
  CHECK(answer == "answer");
  CHECK(error_number(late_write) == EPIPE);
  CHECK(closed.code() == StatusCode::kAborted);
}

TEST_CASE("stream: a closed stream says so", "[stream]") {
  test::TimeLimit time_limit(60);
  absl::Status read, write;
  int fd = 0;
  test::in_runtime(1, [&] {
    Ends ends(test::tcp_pair());
    ends.a.close();
    ends.a.close();
    std::array<char, 4> buffer;
    read = ends.a.read(buffer).status();
    write = ends.a.write_all("x");
    fd = ends.a.fd();
  });
  CHECK(read.code() == StatusCode::kAborted);
  CHECK(read.message() == "read: closed");
  CHECK(write.code() == StatusCode::kAborted);
  CHECK(write.message() == "write: closed");
  CHECK(fd == -1);
}

// A peer that has gone answers with a reset: the second write meets it.
TEST_CASE("stream: writing to a peer that has gone is an error, not a signal", "[stream][F12]") {
  const int workers = GENERATE(1, 2);
  test::TimeLimit time_limit(60);
  absl::Status in_batch, directly;
  test::in_runtime(workers, [&] {
    Ends ends(test::tcp_pair());
    ends.b.close();
    while (directly.ok()) directly = ends.a.write("x").status();
    // The same through the ring: something else is runnable, so the reply goes into the batch.
    Ends more(test::tcp_pair());
    more.b.close();
    Scope scope;
    std::atomic<bool> done{false};
    scope.spawn([&] {
      while (!done) this_fiber::yield();
    });
    while (in_batch.ok()) in_batch = more.a.write("x").status();
    done = true;
    static_cast<void>(scope.join());
  });
  INFO(directly.ToString());
  CHECK((error_number(directly) == EPIPE || error_number(directly) == ECONNRESET));
  CHECK((error_number(in_batch) == EPIPE || error_number(in_batch) == ECONNRESET));
  CHECK(std::string(directly.message()).rfind("write: ", 0) == 0);
}

TEST_CASE("stream: a reset is ECONNRESET, with its text", "[stream]") {
  test::TimeLimit time_limit(60);
  absl::Status status;
  test::in_runtime(1, [&] {
    test::SocketPair pair = test::tcp_pair();
    const linger now{1, 0};
    setsockopt(pair.fd(1), SOL_SOCKET, SO_LINGER, &now, sizeof now);
    TcpStream stream = TcpStream::adopt(pair.take(0));
    Scope scope({.on_error = OnError::kKeepGoing});
    auto reader = scope.spawn([&] {
      std::array<char, 4> buffer;
      return stream.read(buffer).status();
    });
    this_fiber::yield();
    pair.close(1);
    status = reader.join();
    static_cast<void>(scope.join());
  });
  CHECK(error_number(status) == ECONNRESET);
  CHECK(status.code() == StatusCode::kAborted);
  CHECK(status.message() == "read: Connection reset by peer");
}

TEST_CASE("stream: connect says why it failed", "[stream]") {
  test::TimeLimit time_limit(60);
  absl::Status refused, bad, unreachable;
  test::in_runtime(1, [&] {
    auto listener = TcpListener::bind("127.0.0.1:0");
    if (!listener.ok()) return;
    const std::string where = listener->local().to_string();
    listener->close();
    refused = TcpStream::connect(where).status();
    bad = TcpStream::connect("nowhere").status();
    // The broadcast address cannot be connected to, whatever the network.
    unreachable = TcpStream::connect("255.255.255.255:9").status();
  });
  CHECK(refused.code() == StatusCode::kUnavailable);
  CHECK(error_number(refused) == ECONNREFUSED);
  CHECK(std::string(refused.message()).find("connect to 127.0.0.1:") == 0);
  CHECK(bad.code() == StatusCode::kInvalidArgument);
  CHECK(error_number(unreachable) != 0);
}

TEST_CASE("stream: connect and accept find each other, and know their names", "[stream]") {
  const int workers = GENERATE(1, 2);
  test::TimeLimit time_limit(60);
  bool names = false;
  std::string got(4, '\0');
  test::in_runtime(workers, [&] {
    auto listener = TcpListener::bind("127.0.0.1:0");
    if (!listener.ok()) return;
    Scope scope;
    scope.spawn([&]() -> absl::Status {
      auto server = listener->accept();
      if (!server.ok()) return server.status();
      return server->write_all(std::to_string(server->remote().port()).substr(0, 4));
    });
    auto client = TcpStream::connect(listener->local().to_string());
    if (!client.ok() || !client->read_exactly(got).ok()) return;
    names = client->remote().to_string() == listener->local().to_string() &&
            std::to_string(client->local().port()).substr(0, 4) == got;
    static_cast<void>(scope.join());
  });
  CHECK(names);
}

TEST_CASE("stream: a foreign thread is refused, and no thread hangs", "[stream]") {
  test::TimeLimit time_limit(60);
  Ends ends(test::tcp_pair());
  std::array<char, 4> buffer;
  CHECK(ends.a.read(buffer).status().code() == StatusCode::kFailedPrecondition);
  CHECK(ends.a.write("x").status().code() == StatusCode::kFailedPrecondition);
  CHECK(TcpStream::connect("127.0.0.1:9").status().code() == StatusCode::kFailedPrecondition);
  auto listener = TcpListener::bind("127.0.0.1:0");
  REQUIRE(listener.ok());
  CHECK(listener->accept().status().code() == StatusCode::kFailedPrecondition);
  CHECK(serve(*listener, [](TcpStream&) { return absl::OkStatus(); }).code() ==
        StatusCode::kFailedPrecondition);
  listener->close();  // what ends without waiting for a peer may be called
  CHECK(ends.a.shutdown_write().ok());
  ends.a.close();
}

TEST_CASE("stream: bind says what is wrong with the address", "[stream]") {
  auto first = TcpListener::bind("127.0.0.1:0");
  REQUIRE(first.ok());
  const std::string where = first->local().to_string();
  const absl::Status second = TcpListener::bind(where).status();
  CHECK(second.code() == StatusCode::kAlreadyExists);
  CHECK(error_number(second) == EADDRINUSE);
  CHECK(second.message() == "bind to " + where + ": Address already in use");
  const absl::Status elsewhere = TcpListener::bind("192.0.2.1:0").status();
  CHECK(error_number(elsewhere) == EADDRNOTAVAIL);
  CHECK(TcpListener::bind("nonsense").status().code() == StatusCode::kInvalidArgument);
}

TEST_CASE("stream: release gives the descriptor away, open", "[stream]") {
  test::SocketPair pair = test::tcp_pair();
  const int number = pair.fd(0);
  TcpStream stream = TcpStream::adopt(pair.take(0));
  TcpStream moved = std::move(stream);
  const int fd = moved.release();
  CHECK(fd == number);
  moved.close();
  CHECK(send(fd, "x", 1, MSG_NOSIGNAL) == 1);
  ::close(fd);
}

}  // namespace
}  // namespace weft
