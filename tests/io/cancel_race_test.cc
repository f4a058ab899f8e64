// Cancellation and deadlines against completion: whichever comes first, every byte is accounted for.
//
// Moments are made with yields and busy loops, not with clocks. Each read ends in one of three ways: it got
// bytes, it was cut short and got none, or it got bytes although somebody had asked it to end ("both").
#include <weft/net.h>
#include <weft/runtime.h>
#include <weft/scope.h>
#include <weft/time.h>

#include <array>
#include <atomic>
#include <cstring>
#include <stdexcept>
#include <vector>

#include <sys/syscall.h>

#include <catch2/catch.hpp>

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/syscall.h"
#include "runtime/sched/chaos.h"
#include "tests/io/loopback.h"
#include "tests/support/random.h"
#include "tests/support/sanitizer.h"

namespace weft {
namespace {

constexpr std::uint64_t kPeriod = 251;  // of the bytes on the wire: a lost or doubled one shows

int operations_of(int normal) {
  if (test::soaking()) return 10 * normal;
  if (sched::kChaos) return normal / 10;  // there each of many seeds has its turn
  return test::kAddressSanitizer || test::kThreadSanitizer ? normal / 5 : normal;
}

// A moment more or less.
void dawdle(test::Random& random) {
  for (std::uint64_t n = random.below(3); n > 0; --n) this_fiber::yield();
  for (std::uint64_t n = random.below(2000); n > 0; --n) arch::pause();
}

struct Wire {
  explicit Wire(test::SocketPair made)
      : pair(std::move(made)), stream(TcpStream::adopt(pair.take(0))) {}

  void send_some(std::uint64_t bytes) {
    std::array<unsigned char, 64> text;
    for (std::uint64_t i = 0; i < bytes; ++i)
      text[i] = static_cast<unsigned char>((sent + i) % kPeriod);
    const ssize_t n = send(pair.fd(1), text.data(), bytes, MSG_NOSIGNAL);
    if (n > 0) sent += static_cast<std::uint64_t>(n);
  }

  void take(const unsigned char* bytes, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) wrong += bytes[i] != (received + i) % kPeriod;
    received += count;
  }

  // What is still in the socket when the sender has ended.
  void take_the_rest() {
    pair.close(1);
    std::array<unsigned char, 4096> rest;
    while (auto n = stream.read(rest).value_or(0)) take(rest.data(), n);
  }

  test::SocketPair pair;
  TcpStream stream;
  std::uint64_t sent = 0;  // by one fiber at a time
  std::uint64_t received = 0;
  std::uint64_t wrong = 0;
};

struct Tally {
  int completed = 0;
  int cut_short = 0;
  int both = 0;
  int undefined = 0;

  void count(const absl::StatusOr<std::size_t>& n, bool asked) {
    if (n.ok() && *n > 0) {
      (asked ? both : completed) += 1;
    } else if (is_interrupt(n.status())) {
      ++cut_short;
    } else {
      ++undefined;
    }
  }
};

void print(const char* what, int workers, const Tally& tally) {
  std::printf("%s, %d workers: completed=%d cancelled=%d both=%d\n", what, workers, tally.completed,
              tally.cut_short, tally.both);
  std::fflush(stdout);
}

void check_tally(const Tally& tally, const Wire& wire, int operations) {
  CHECK(tally.undefined == 0);
  CHECK(tally.completed + tally.cut_short + tally.both == operations);
  CHECK(tally.completed > 0);
  CHECK(tally.cut_short > 0);
  CHECK(wire.wrong == 0);
  CHECK(wire.received == wire.sent);
}

TEST_CASE("cancel_race: a read is cancelled, or gets its bytes, and none is lost",
          "[cancel_race][F3][F11]") {
  const auto [workers, share] = GENERATE(table<int, int>({{1, 20'000}, {2, 60'000}, {4, 20'000}}));
  test::TimeLimit time_limit(test::soaking() ? 3000 : 240);
  const int operations = operations_of(share);
  Wire wire(test::tcp_pair());
  Tally tally;
  test::in_runtime(workers, [&] {
    test::Random random(test::seed());
    std::array<unsigned char, 48> buffer;
    for (int i = 0; i < operations; ++i) {
      std::atomic<bool> began{false};  // one that is cancelled before does not run at all
      Scope scope;
      FiberGroup reading;
      reading.spawn([&] {
        began = true;
        auto n = wire.stream.read(buffer);
        tally.count(n, this_fiber::cancelled());
        if (n.ok()) wire.take(buffer.data(), *n);
      });
      const std::uint64_t seed = random.next();
      scope.spawn([&, seed] {
        test::Random own(seed);
        while (!began) this_fiber::yield();
        dawdle(own);
        // Sometimes long enough for the bytes, if there are any.
        if (own.one_in(4)) {
          for (int n = 0; n < 1000 && reading.size() != 0; ++n) this_fiber::yield();
        }
        reading.cancel();
      });
      // Half of the time there is something to read, at about the same moment.
      if (random.one_in(2)) {
        dawdle(random);
        wire.send_some(1 + random.below(64));
      }
      static_cast<void>(reading.join());
      static_cast<void>(scope.join());
    }
    wire.take_the_rest();
  });
  print("cancel", workers, tally);
  check_tally(tally, wire, operations);
  CHECK(tally.both > 0);
}

TEST_CASE("cancel_race: a read meets its deadline, or gets its bytes, and none is lost",
          "[cancel_race][F3]") {
  const auto [workers, share] = GENERATE(table<int, int>({{1, 5'000}, {2, 10'000}}));
  test::TimeLimit time_limit(test::soaking() ? 3000 : 240);
  const int operations = operations_of(share);
  Wire wire(test::tcp_pair());
  Tally tally;
  test::in_runtime(workers, [&] {
    std::atomic<bool> done{false};
    Scope scope;
    scope.spawn([&] {
      test::Random own(test::seed() + 1);
      while (!done) {
        wire.send_some(1 + own.below(3));
        for (std::uint64_t n = own.below(4); n > 0; --n) this_fiber::yield();
        if (own.one_in(3)) static_cast<void>(sleep_for(absl::Microseconds(own.below(50))));
      }
    });
    test::Random random(test::seed());
    std::array<unsigned char, 48> buffer;
    for (int i = 0; i < operations; ++i) {
      Timeout limit(absl::Microseconds(random.below(40)));
      auto n = wire.stream.read(buffer);
      tally.count(n, limit.expired());
      if (n.ok()) wire.take(buffer.data(), *n);
    }
    done = true;
    static_cast<void>(scope.join());
    wire.take_the_rest();
  });
  print("deadline", workers, tally);
  check_tally(tally, wire, operations);
}

TEST_CASE("cancel_race: a write that is cancelled says how much it wrote", "[cancel_race][F3]") {
  const int workers = GENERATE(1, 2);
  test::TimeLimit time_limit(240);
  const int operations = operations_of(3'000);
  std::uint64_t written = 0;
  std::uint64_t received = 0;
  std::uint64_t wrong = 0;
  int cut_short = 0;
  test::in_runtime(workers, [&] {
    test::SocketPair pair = test::tcp_pair();
    const int small = 8 << 10;
    setsockopt(pair.fd(0), SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    TcpStream writer = TcpStream::adopt(pair.take(0));
    TcpStream reader = TcpStream::adopt(pair.take(1));
    Scope reading;
    reading.spawn([&] {
      std::vector<unsigned char> got(64 << 10);
      test::Random own(test::seed());
      while (auto n = reader.read(std::span(got).first(1 + own.below(got.size()))).value_or(0)) {
        for (std::size_t i = 0; i < n; ++i) wrong += got[i] != (received + i) % kPeriod;
        received += n;
        dawdle(own);
      }
    });
    test::Random random(test::seed());
    std::vector<unsigned char> text(64 << 10);
    for (int i = 0; i < operations; ++i) {
      for (std::size_t k = 0; k < text.size(); ++k)
        text[k] = static_cast<unsigned char>((written + k) % kPeriod);
      FiberGroup group;
      group.spawn([&] {
        auto n = writer.write(text);
        if (n.ok()) written += *n;
        cut_short += is_interrupt(n.status());
      });
      dawdle(random);
      group.cancel();
      static_cast<void>(group.join());
    }
    writer.close();
    static_cast<void>(reading.join());
  });
  CHECK(wrong == 0);
  CHECK(received == written);
  CHECK(cut_short > 0);
}

long kernel_thread() { return arch::syscall(SYS_gettid); }

TEST_CASE("cancel_race: another worker cancels an operation that is in this one's ring",
          "[cancel_race][F11]") {
  const int workers = GENERATE(2, 4);
  test::TimeLimit time_limit(240);
  const int rounds = operations_of(5'000);
  int cancelled = 0;
  int elsewhere = 0;
  test::in_runtime(workers, [&] {
    test::SocketPair pair = test::tcp_pair();
    TcpStream stream = TcpStream::adopt(pair.take(0));
    for (int i = 0; i < rounds; ++i) {
      std::atomic<long> reads_on{0};
      FiberGroup group({.on_error = OnError::kKeepGoing});
      auto reader = group.spawn([&] {
        std::array<char, 8> buffer;
        reads_on = kernel_thread();
        return stream.read(buffer).status();
      });
      // Busy, so that another worker takes the reader.
      for (int spins = 0; reads_on == 0 && spins < 20'000; ++spins) arch::pause();
      while (reads_on == 0) this_fiber::yield();
      elsewhere += kernel_thread() != reads_on;
      group.cancel();
      cancelled += reader.join().code() == absl::StatusCode::kCancelled;
    }
  });
  std::printf("%d workers: %d of %d cancelled from another worker\n", workers, elsewhere, rounds);
  CHECK(cancelled == rounds);
  CHECK(elsewhere > 0);
}

TEST_CASE("cancel_race: a foreign thread cancels operations", "[cancel_race][F11]") {
  const int workers = GENERATE(1, 2, 4);
  test::TimeLimit time_limit(240);
  const int rounds = operations_of(1'000);
  Options options;
  options.workers = workers;
  options.handle_signals = false;
  auto runtime = Runtime::start(options);
  REQUIRE(runtime.ok());
  test::SocketPair pair = test::tcp_pair();
  TcpStream stream = TcpStream::adopt(pair.take(0));
  int cancelled = 0;
  for (int i = 0; i < rounds; ++i) {
    FiberGroup group(**runtime, {.on_error = OnError::kKeepGoing});
    std::atomic<bool> started{false};
    auto reader = group.spawn([&] {
      std::array<char, 8> buffer;
      started = true;
      return stream.read(buffer).status();
    });
    if (i % 4 != 0) {
      while (!started) sched_yield();
    }
    i % 2 == 0 ? group.cancel() : reader.cancel();
    cancelled += reader.join().code() == absl::StatusCode::kCancelled;
  }
  CHECK(cancelled == rounds);
  CHECK(test::settled(**runtime));
  CHECK((*runtime)->stop().ok());
}

// The stack of a fiber whose read was cancelled goes to the next fiber at once. If the kernel still knew of
// the old buffer, the sender's letters would appear in the new fiber's frame.
TEST_CASE("cancel_race: a cancelled scope awaits its operations before stacks are used again",
          "[cancel_race][F4]") {
  const int workers = GENERATE(1, 2);
  const bool by_exception = GENERATE(false, true);
  test::TimeLimit time_limit(240);
  const int rounds = operations_of(1'000);
  constexpr int kFibers = 4;
  std::atomic<int> damaged{0};
  int thrown = 0;
  test::in_runtime(workers, [&] {
    test::Random random(test::seed());
    std::array<char, 1024> letters;
    letters.fill('K');
    for (int round = 0; round < rounds; ++round) {
      std::vector<test::SocketPair> pairs;
      std::vector<TcpStream> streams;
      for (int i = 0; i < kFibers; ++i) {
        pairs.push_back(test::tcp_pair());
        streams.push_back(TcpStream::adopt(pairs.back().take(0)));
      }
      try {
        Scope scope;
        for (TcpStream& stream : streams) {
          scope.spawn([&stream] {
            std::array<char, 1024> on_stack;
            return stream.read(on_stack).status();
          });
        }
        for (std::uint64_t n = random.below(4); n > 0; --n) this_fiber::yield();
        if (by_exception) scope.spawn([] { throw std::runtime_error("a sibling"); });
        this_fiber::yield();
        if (!by_exception) scope.cancel();
        if (random.one_in(2)) send(pairs[0].fd(1), letters.data(), letters.size(), MSG_NOSIGNAL);
        static_cast<void>(scope.join());
      } catch (const std::runtime_error&) {
        ++thrown;
      }
      Scope successors;
      for (int i = 0; i < kFibers; ++i) {
        successors.spawn([&] {
          std::array<volatile char, 4096> canary;
          for (volatile char& c : canary) c = 'c';
          this_fiber::yield();
          this_fiber::yield();
          for (volatile char& c : canary) damaged += c != 'c';
        });
      }
      for (auto& pair : pairs) send(pair.fd(1), letters.data(), letters.size(), MSG_NOSIGNAL);
      static_cast<void>(successors.join());
    }
  });
  CHECK(damaged == 0);
  CHECK(thrown == (by_exception ? rounds : 0));
}

}  // namespace
}  // namespace weft
