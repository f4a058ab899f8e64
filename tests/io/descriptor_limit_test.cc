// TcpListener without descriptors: accepting goes on when there are some again, without spinning meanwhile.
//
// The limit is the process's, so each case runs in a child; and because a forked child may start a runtime
// only if its parent has never started one, these cases have a program of their own.
#include <weft/net.h>
#include <weft/runtime.h>
#include <weft/scope.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <string>
#include <vector>

#include <sys/resource.h>
#include <sys/wait.h>

#include <catch2/catch.hpp>

#include "runtime/os/clock.h"
#include "runtime/os/system.h"
#include "tests/io/loopback.h"
#include "tests/support/proc.h"

namespace weft {
namespace {

// The exit status of a child that runs `body`.
template <class Body>
int in_child(Body body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// Clients live in another process: they need descriptors, too. Each says one byte and waits for the end.
// Exits with 0 when every client was either answered or turned away.
int run_clients(int port, int count, int ready_fd) {
  std::vector<int> fds;
  for (int i = 0; i < count; ++i) {
    auto address = SocketAddress::parse("127.0.0.1:" + std::to_string(port));
    fds.push_back(test::connect_to(*address));
    if (fds.back() < 0) return 1;
  }
  if (write(ready_fd, "r", 1) != 1) return 2;
  int answered = 0;
  for (int fd : fds) {
    char byte = 0;
    const ssize_t sent = send(fd, "?", 1, MSG_NOSIGNAL);
    if (sent == 1 && recv(fd, &byte, 1, 0) == 1) ++answered;
    ::close(fd);
  }
  return answered > 0 ? 0 : 3;
}

struct OutOfDescriptors {
  int accepted = 0;
  int refused = 0;
  int other_errors = 0;
  std::uint64_t entries = 0;
};

// Accepts with room for few descriptors, holding what it accepts until it meets the limit.
OutOfDescriptors accept_at_the_limit(TcpListener& listener, Runtime& runtime, int clients) {
  OutOfDescriptors seen;
  const auto body = [&] {
    std::vector<TcpStream> held;
    int gone = 0;  // answered or turned away
    while (gone < clients) {
      auto stream = listener.accept();
      if (stream.ok()) {
        ++seen.accepted;
        held.push_back(*std::move(stream));
        if (gone + static_cast<int>(held.size()) < clients) continue;
      } else if (error_number(stream.status()) == EMFILE) {
        ++seen.refused;
        ++gone;
      } else {
        ++seen.other_errors;
        return;
      }
      for (TcpStream& one : held) {
        std::array<char, 1> byte;
        if (one.read(byte).ok()) static_cast<void>(one.write_all("!"));
        ++gone;
      }
      held.clear();
    }
    listener.close();
  };
  const std::uint64_t before = runtime.metrics().kernel_entries;
  static_cast<void>(runtime.block_on(body));
  seen.entries = runtime.metrics().kernel_entries - before;
  return seen;
}

TEST_CASE("listener: without descriptors it turns one away at a time and does not spin",
          "[listener][F7][F8]") {
  test::TimeLimit time_limit(120);
  constexpr int kClients = 100;
  const int code = in_child([] {
    alarm(60);
    auto listener = TcpListener::bind("127.0.0.1:0");
    if (!listener.ok()) return 10;
    int ready[2];
    if (pipe(ready) != 0) return 11;
    const pid_t clients = fork();
    if (clients == 0) {
      alarm(60);
      _exit(run_clients(listener->local().port(), kClients, ready[1]));
    }
    char byte;
    if (read(ready[0], &byte, 1) != 1) return 12;
    Options options;
    options.workers = 1;
    auto runtime = Runtime::start(options);
    if (!runtime.ok()) return 13;
    const auto open_now = static_cast<rlim_t>(test::entries("/proc/self/fd"));
    const rlimit limit{open_now + 20, open_now + 20};
    setrlimit(RLIMIT_NOFILE, &limit);
    const OutOfDescriptors seen = accept_at_the_limit(*listener, **runtime, kClients);
    if (seen.other_errors != 0) return 14;
    if (seen.refused == 0) return 15;                         // the limit was never met
    if (seen.accepted + seen.refused != kClients) return 16;  // none is lost
    std::printf("accepted=%d turned_away=%d kernel_entries=%llu\n", seen.accepted, seen.refused,
                static_cast<unsigned long long>(seen.entries));
    std::fflush(stdout);
    // Each client needs a few entries; a naive re-arm makes hundreds of thousands.
    if (seen.entries > 40u * kClients) return 17;
    int status = 0;
    waitpid(clients, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : 18;
  });
  CHECK(code == 0);
}

// A server whose connections hold all descriptors while hundreds of clients wait.
struct LimitedServer {
  static constexpr unsigned kAttempts = 8;

  // What the pauses of serve() between so many attempts add up to, at least.
  static constexpr std::int64_t kPausesNs =
      (1 + 2 + 4 + 8 + 16 + 32 + 64) * std::int64_t{1'000'000};

  static unsigned attempts() { return os::system::calls_seen(os::system::Call::kAccept); }

  // Serves until the clients' process has ended. Returns its exit status, or what went wrong.
  static int run(Runtime& runtime, TcpListener& listener, pid_t clients) {
    const std::int64_t began_ns = os::now_ns();
    std::int64_t last_ns = 0;
    const Fiber<void> release = runtime.root().spawn([&] {
      while (attempts() < kAttempts) this_fiber::yield();
      last_ns = os::now_ns();
    });
    Fiber<absl::Status> server = runtime.root().spawn([&] {
      return serve(listener, [&release](TcpStream& stream) -> absl::Status {
        std::array<char, 1> byte;
        if (absl::Status s = release.wait(); !s.ok()) return s;
        if (absl::StatusOr<std::size_t> n = stream.read(byte); !n.ok()) return n.status();
        return stream.write_all("!");
      });
    });
    int status = 0;
    waitpid(clients, &status, 0);
    runtime.drain();
    if (!server.join().ok() || !WIFEXITED(status)) return 20;
    if (last_ns - began_ns < kPausesNs) return 21;  // it tried more often than its pauses allow
    return WEXITSTATUS(status);
  }
};

TEST_CASE("listener: five hundred clients of a server with 64 descriptors are served or sent away",
          "[listener][F8]") {
  test::TimeLimit time_limit(120);
  constexpr int kClients = 500;
  const int code = in_child([] {
    alarm(100);
    auto listener = TcpListener::bind("127.0.0.1:0");
    int ready[2];
    if (!listener.ok() || pipe(ready) != 0) return 10;
    const pid_t clients = fork();
    if (clients == 0) {
      alarm(100);
      _exit(run_clients(listener->local().port(), kClients, ready[1]));
    }
    char byte;
    if (read(ready[0], &byte, 1) != 1) return 11;
    Options options;
    options.workers = 1;
    options.log = [](LogLevel, std::string_view) {};
    auto runtime = Runtime::start(options);
    if (!runtime.ok()) return 12;
    const rlimit limit{64, 64};
    setrlimit(RLIMIT_NOFILE, &limit);
    os::system::arm_fault(os::system::Call::kAccept, ~0u, 0);  // only counts
    return LimitedServer::run(**runtime, *listener, clients);
  });
  CHECK(code == 0);
}

TEST_CASE("listener: two fibers that meet the limit do not block a worker", "[listener][F7]") {
  test::TimeLimit time_limit(60);
  const int code = in_child([] {
    alarm(30);
    auto listener = TcpListener::bind("127.0.0.1:0");
    if (!listener.ok()) return 10;
    Options options;
    options.workers = 1;
    auto runtime = Runtime::start(options);
    if (!runtime.ok()) return 11;
    std::atomic<int> refused{0};  // one worker, but nothing orders its fibers
    static_cast<void>((*runtime)->block_on([&] {
      Scope scope;
      for (int i = 0; i < 2; ++i) {
        scope.spawn([&] { refused += error_number(listener->accept().status()) == EMFILE; });
      }
      this_fiber::yield();
      // The client is made first and given the last number; then there is none for the accepted socket.
      const int client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
      const int lowest_free = dup(client);
      ::close(lowest_free);
      const rlimit limit{static_cast<rlim_t>(lowest_free), static_cast<rlim_t>(lowest_free)};
      setrlimit(RLIMIT_NOFILE, &limit);
      const SocketAddress address = listener->local();
      connect(client, static_cast<const sockaddr*>(address.data()), address.size());
      for (int i = 0; i < 1000 && refused < 2; ++i) {
        // A second client has no descriptor to come from: the one is all there is. Both hear of it, or
        // the other goes on waiting; neither may block its worker.
        this_fiber::yield();
      }
      scope.cancel();
      static_cast<void>(scope.join());
      ::close(client);
      listener->close();
    }));
    return refused >= 1 ? 0 : 20;
  });
  CHECK(code == 0);
}

}  // namespace
}  // namespace weft
