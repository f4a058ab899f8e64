// Timeout around I/O: whose deadline it was, what restart() lifts, and that it stays expired.
#include <weft/net.h>
#include <weft/runtime.h>
#include <weft/scope.h>
#include <weft/time.h>

#include <array>
#include <vector>

#include <catch2/catch.hpp>

#include "tests/io/loopback.h"

namespace weft {
namespace {

using absl::StatusCode;

const absl::Duration kSoon = absl::Milliseconds(1);
const absl::Duration kNever = absl::Hours(1);

struct Ends {
  Ends() : Ends(test::tcp_pair()) {}
  explicit Ends(test::SocketPair pair)
      : a(TcpStream::adopt(pair.take(0))), b(TcpStream::adopt(pair.take(1))) {}
  absl::Status read() {
    std::array<char, 8> buffer;
    return a.read(buffer).status();
  }
  TcpStream a, b;
};

TEST_CASE("timeout: it ends a read, and every wait after it, but takes no byte", "[timeout]") {
  const int workers = GENERATE(1, 2);
  test::TimeLimit time_limit(60);
  std::vector<StatusCode> codes;
  bool expired = false, outer_expired = true, got_it = false;
  test::in_runtime(workers, [&] {
    Ends ends;
    Timeout outer(kNever);
    {
      Timeout limit(kSoon);
      codes.push_back(ends.read().code());
      static_cast<void>(send(ends.b.fd(), "data", 4, MSG_NOSIGNAL));
      for (int i = 0; i < 100; ++i) codes.push_back(ends.read().code());
      codes.push_back(ends.a.write("x").status().code());
      codes.push_back(sleep_for(kNever).code());
      codes.push_back(TcpStream::connect("127.0.0.1:9").status().code());
      codes.push_back(this_fiber::checkpoint().code());
      expired = limit.expired();
      outer_expired = outer.expired();
    }
    std::array<char, 8> buffer;
    got_it = ends.a.read(buffer).value_or(0) == 4 && buffer[3] == 'a';
  });
  for (const StatusCode code : codes) CHECK(code == StatusCode::kDeadlineExceeded);
  CHECK(expired);
  CHECK_FALSE(outer_expired);
  CHECK(got_it);
}

TEST_CASE("timeout: expired() tells an own deadline from one outside", "[timeout]") {
  const int workers = GENERATE(1, 2);
  test::TimeLimit time_limit(60);
  StatusCode inside{}, still{}, after{};
  bool inner_expired = true, outer_expired = false;
  test::in_runtime(workers, [&] {
    Ends ends;
    {
      Timeout outer(kSoon);
      {
        Timeout inner(kNever);
        inside = ends.read().code();
        inner_expired = inner.expired();
      }
      still = ends.read().code();
      outer_expired = outer.expired();
    }
    static_cast<void>(ends.b.write_all("x"));
    after = ends.read().code();
  });
  CHECK(inside == StatusCode::kDeadlineExceeded);
  CHECK_FALSE(inner_expired);
  CHECK(still == StatusCode::kDeadlineExceeded);
  CHECK(outer_expired);
  CHECK(after == StatusCode::kOk);
}

TEST_CASE("timeout: restart() lifts what nobody was told of, and keeps what somebody was",
          "[timeout]") {
  const int workers = GENERATE(1, 2);
  test::TimeLimit time_limit(60);
  StatusCode lifted{}, told{}, kept{};
  bool was_expired = false, lifted_expired = true, kept_expired = false;
  test::in_runtime(workers, [&] {
    Ends ends;
    static_cast<void>(ends.b.write_all("x"));
    Timeout limit(kSoon);
    while (!limit.expired()) this_fiber::yield();  // no wait has seen it
    was_expired = limit.expired();
    limit.restart(kNever);
    lifted_expired = limit.expired();
    lifted = ends.read().code();
    limit.restart(kSoon);  // to an earlier deadline
    told = ends.read().code();
    limit.restart(kNever);
    kept_expired = limit.expired();
    kept = ends.read().code();
  });
  CHECK(was_expired);
  CHECK_FALSE(lifted_expired);
  CHECK(lifted == StatusCode::kOk);
  CHECK(told == StatusCode::kDeadlineExceeded);
  CHECK(kept_expired);
  CHECK(kept == StatusCode::kDeadlineExceeded);
}

TEST_CASE("timeout: restarted before each of many waits it never fires", "[timeout]") {
  const int workers = GENERATE(1, 2);
  test::TimeLimit time_limit(60);
  int echoed = 0;
  bool expired = true;
  test::in_runtime(workers, [&] {
    Ends ends;
    Scope scope;
    scope.spawn([&] {
      std::array<char, 8> buffer;
      while (auto n = ends.b.read(buffer).value_or(0)) {
        if (!ends.b.write_all(std::span(buffer).first(n)).ok()) return;
      }
    });
    Timeout limit(absl::Minutes(1));
    for (int i = 0; i < 1'000; ++i) {
      limit.restart(absl::Minutes(1) + absl::Microseconds(i % 2 == 0 ? i : -i));
      echoed += ends.a.write_all("ping").ok() && ends.read().ok();
    }
    expired = limit.expired();
    ends.a.close();
    static_cast<void>(scope.join());
  });
  CHECK(echoed == 1'000);
  CHECK_FALSE(expired);
}

TEST_CASE("timeout: a deadline in the past ends the first wait", "[timeout]") {
  const int workers = GENERATE(1, 2);
  test::TimeLimit time_limit(60);
  std::vector<StatusCode> codes;
  test::in_runtime(workers, [&] {
    Ends ends;
    for (const absl::Duration past : {absl::ZeroDuration(), -kSoon, -absl::InfiniteDuration()}) {
      Timeout limit(past);
      codes.push_back(ends.read().code());
    }
  });
  CHECK(codes == std::vector<StatusCode>(3, StatusCode::kDeadlineExceeded));
}

TEST_CASE("timeout: it bounds writes, connects and accepts", "[timeout]") {
  const int workers = GENERATE(1, 2);
  test::TimeLimit time_limit(60);
  StatusCode write{}, connect{}, accept{};
  std::size_t written = 0, received = 0;
  test::in_runtime(workers, [&] {
    Ends ends;
    {
      const std::vector<char> block(64 << 10, 'b');
      Timeout limit(kSoon);
      while (write == StatusCode::kOk) {
        auto n = ends.a.write(block);
        written += n.value_or(0);
        write = n.status().code();
      }
    }
    ends.a.close();
    std::vector<char> got(64 << 10);
    while (auto n = ends.b.read(got).value_or(0)) received += n;

    auto listener = TcpListener::bind("127.0.0.1:0", {.backlog = 0});
    if (!listener.ok()) return;
    {
      Timeout limit(kSoon);
      accept = listener->accept().status().code();
    }
    // The listener is armed and takes what comes; a second one, that nobody accepts from, fills up.
    auto full = TcpListener::bind("127.0.0.1:0", {.backlog = 0});
    std::vector<TcpStream> waiting;
    Timeout limit(absl::Milliseconds(20));
    while (connect == StatusCode::kOk) {
      auto one = TcpStream::connect(full->local().to_string());
      connect = one.status().code();
      if (one.ok()) waiting.push_back(*std::move(one));
    }
  });
  CHECK(write == StatusCode::kDeadlineExceeded);
  CHECK(received == written);
  CHECK(accept == StatusCode::kDeadlineExceeded);
  CHECK(connect == StatusCode::kDeadlineExceeded);
}

TEST_CASE("timeout: what happened wins over a deadline that passes at the same time",
          "[timeout][F3]") {
  const int workers = GENERATE(1, 2);
  test::TimeLimit time_limit(60);
  absl::Status first, second;
  std::size_t got = 0;
  test::in_runtime(workers, [&] {
    Ends ends;
    Timeout limit(kSoon);
    Scope scope;
    // While this fiber is parked in the read, the byte arrives and then nothing runs until the deadline is
    // past; both are found in the same turn.
    scope.spawn([&] {
      static_cast<void>(send(ends.b.fd(), "x", 1, MSG_NOSIGNAL));
      const Deadline past = Deadline::in(2 * kSoon);
      while (past.remaining() > absl::ZeroDuration()) {
      }
    });
    std::array<char, 8> buffer;
    auto n = ends.a.read(buffer);
    first = n.status();
    got = n.value_or(0);
    while (!limit.expired()) this_fiber::yield();
    second = ends.read();
  });
  // Either the byte was received, or the read was cut short and the byte is still there; never both.
  CHECK((first.ok() ? got == 1 : first.code() == StatusCode::kDeadlineExceeded));
  CHECK(second.code() == StatusCode::kDeadlineExceeded);
}

}  // namespace
}  // namespace weft
