// serve(): one fiber accepts, one fiber per connection serves. The accepting fiber waits while the limit is
// reached, so further clients stay in the kernel's backlog, and ends when the runtime drains; then it waits
// for the connections that are left.
#include <weft/net.h>
#include <weft/runtime.h>
#include <weft/scope.h>
#include <weft/time.h>

#include <algorithm>
#include <array>
#include <exception>
#include <new>
#include <string>
#include <utility>

#include <cxxabi.h>

#include "runtime/base/plant.h"
#include "runtime/os/clock.h"
#include "runtime/sched/core.h"
#include "runtime/sched/object_word.h"
#include "runtime/sched/park.h"
#include "runtime/sched/sleep.h"
#include "runtime/sched/status.h"
#include "runtime/sched/wake_batch.h"
#include "runtime/sched/worker.h"

namespace weft::internal {
namespace {

using sched::ObjectWord;
using sched::WaitList;
using sched::WaitNode;
using sched::WakeBatch;

constexpr absl::Duration kLinger = absl::Seconds(1);
constexpr std::size_t kLingerBytesMax = 256 << 10;
constexpr absl::Duration kPauseMin = absl::Milliseconds(1);
constexpr absl::Duration kPauseMax = absl::Milliseconds(100);

// How many connections are open; the accepting fiber waits here while there are too many.
class Gate {
 public:
  explicit Gate(std::size_t limit) : limit_(std::max<std::size_t>(limit, 1)) {}

  // Waits for room; false when the wait was interrupted, or the runtime drains.
  bool enter() {
    while (true) {
      const std::uint64_t state = word_.lock();
      if (open_ < limit_) {
        ++open_;
        word_.unlock(state);
        return true;
      }
      WaitNode node;
      if (!sched::wait(word_, state, node, sched::kCancel | sched::kDrain)) return false;
    }
  }

  void leave() {
    WakeBatch batch;
    const std::uint64_t state = word_.lock();
    --open_;
    WaitList waiting(ObjectWord::waiters(state));
    if (WaitNode* node = waiting.claim_first()) batch.add(*node);
    word_.unlock(ObjectWord::with_waiters(state, waiting.first()));
    batch.deliver();
  }

 private:
  const std::size_t limit_;
  ObjectWord word_;
  std::size_t open_ = 0;  // under the lock
};

// At most one line a second, with the number of those that were left out.
class ErrorLog {
 public:
  explicit ErrorLog(sched::Core& core) : core_(core) {}

  // `error` is a status or a text. A line for which there is no memory is left out, too.
  template <class Error>
  void add(const char* what, const Error& error) noexcept {
    try {
      write(what, text_of(error));
    } catch (const std::bad_alloc&) {
      omitted_.fetch_add(1, std::memory_order_relaxed);  // relaxed: a statistic
    }
  }

 private:
  static std::string text_of(const absl::Status& error) { return error.ToString(); }
  static std::string text_of(const char* error) { return error; }

  void write(const char* what, const std::string& error) {
    const std::int64_t now = os::now_ns();
    std::int64_t next = next_ns_.load(std::memory_order_relaxed);  // relaxed: decided by the CAS
    if (now < next || !next_ns_.compare_exchange_strong(next, now + os::kNanosPerSecond,
                                                        std::memory_order_relaxed)) {
      omitted_.fetch_add(1, std::memory_order_relaxed);  // relaxed: a statistic
      return;
    }
    std::string line = std::string("serve: ") + what + ": " + error;
    if (const std::uint64_t omitted = omitted_.exchange(0, std::memory_order_relaxed);
        omitted != 0) {
      line += " (and " + std::to_string(omitted) + " more since the last line)";
    }
    core_.log(LogLevel::kWarning, line);
  }

  sched::Core& core_;
  base::Atomic<std::int64_t> next_ns_{0};
  base::Atomic<std::uint64_t> omitted_{0};
};

struct Server {
  Server(sched::Core& of, const ServeOptions& options)
      : core(of), gate(options.max_connections), errors(of) {}
  sched::Core& core;
  Gate gate;
  ErrorLog errors;
  base::Atomic<std::uint64_t> drained{0};
};

// An accepted client and its place among max_connections, which is free again when this is gone: also when
// the fiber that should have served it could not be made, or got no stack.
class Connection {
 public:
  Connection(Server& server, TcpStream accepted) : stream(std::move(accepted)), server_(&server) {}
  Connection(Connection&& other) noexcept
      : stream(std::move(other.stream)),
        served(other.served),
        server_(std::exchange(other.server_, nullptr)) {}
  Connection& operator=(Connection&&) = delete;
  ~Connection() {
    if (server_ == nullptr) return;
    stream.close();
    if (!served && !this_fiber::cancelled()) report_unserved();
    if (served || !base::planted(77)) server_->gate.leave();
  }

  TcpStream stream;
  bool served = false;

 private:
  void report_unserved() const noexcept {
    const absl::Status why = server_->core.stacks().shortage();
    if (why.ok()) return server_->errors.add("a connection got no fiber", "no memory");
    server_->errors.add("a connection got no fiber", why);
  }

  Server* server_;
};

// Closing with unread bytes would send a reset, which can destroy a reply that is still on its way. So
// our side ends first, and what the peer still says is read, for a moment.
void end_gently(TcpStream& stream) try {
  if (stream.at_end() || this_fiber::cancelled() || !stream.shutdown_write().ok()) return;
  Timeout limit(kLinger);
  std::array<std::byte, 512> rest;
  for (std::size_t total = 0; total < kLingerBytesMax;) {
    absl::StatusOr<std::size_t> n = stream.read(rest);
    if (!n.ok() || *n == 0) return;
    total += *n;
  }
} catch (const std::bad_alloc&) {
  // no memory to say why it is over
}

// Whether an error is only the news that the peer, or a deadline, or the drain has ended the connection.
bool is_ordinary_end(const absl::Status& status) {
  return status.ok() || sched::is_interruption(status);
}

void serve_one(Server& server, TcpStream& stream,
               const std::function<absl::Status(TcpStream&)>& handler) {
  try {
    const absl::Status status = handler(stream);
    if (!is_ordinary_end(status)) server.errors.add("a connection ended", status);
  } catch (const std::exception& error) {
    server.errors.add("a handler threw", error.what());
  } catch (abi::__forced_unwind&) {
    throw;  // pthread_exit and pthread_cancel must not stop here
  } catch (...) {
    server.errors.add("a handler threw", "something that is no std::exception");
  }
  end_gently(stream);
  stream.close();
  // relaxed: counted, and read after all connections were joined.
  if (server.core.draining()) server.drained.fetch_add(1, std::memory_order_relaxed);
}

// Not even without memory is a server at its end: it pauses, as without descriptors.
absl::StatusOr<TcpStream> accept_one(TcpListener& listener) {
  try {
    return listener.accept();
  } catch (const std::bad_alloc&) {
    return absl::Status(absl::StatusCode::kResourceExhausted, "");
  }
}

// Accepts until something ends that: OK for the drain and for a closed listener.
absl::Status accept_all(Server& server, TcpListener& listener, Scope& connections,
                        const std::function<absl::Status(TcpStream&)>& handler,
                        const ServeOptions& options) {
  absl::Duration pause = kPauseMin;
  while (server.gate.enter()) {
    absl::StatusOr<TcpStream> stream = accept_one(listener);
    if (stream.ok()) {
      pause = kPauseMin;
      connections.spawn(
          [&server, &handler, accepted = Connection(server, *std::move(stream))]() mutable {
            accepted.served = true;
            serve_one(server, accepted.stream, handler);
          },
          {.stack_size = options.stack_size});
      continue;
    }
    server.gate.leave();
    const absl::Status& status = stream.status();
    const bool closed = status.code() == absl::StatusCode::kAborted && sched::errno_of(status) == 0;
    if (closed || sched::is_interruption(status)) break;
    server.errors.add("accepting", status);
    if (!sleep_for(pause).ok()) break;
    pause = std::min(2 * pause, kPauseMax);
  }
  return server.core.draining() ? absl::OkStatus() : sched::interrupted();
}

}  // namespace

absl::Status serve(TcpListener& listener, const std::function<absl::Status(TcpStream&)>& handler,
                   const ServeOptions& options) {
  if (sched::current_fiber() == nullptr) {
    return absl::FailedPreconditionError("serve: only a fiber can serve; call it inside weft::run");
  }
  Server server(sched::current_worker()->core(), options);
  absl::Status status;
  {
    Scope connections({.name = "serve", .on_error = OnError::kKeepGoing});
    status = accept_all(server, listener, connections, handler, options);
    if (status.ok()) listener.close();  // clients that come now should hear that there is nobody
    const absl::Status joined = connections.join();
    if (status.ok() && sched::is_interruption(joined)) status = joined;
  }
  if (server.core.draining()) {
    server.core.log(LogLevel::kInfo,
                    "serve: drained " +
                        std::to_string(server.drained.load(std::memory_order_relaxed)) +
                        " connections");
    // The drain ran into its time limit and was ended by cancellation: still an orderly end.
    if (sched::is_interruption(status)) status = absl::OkStatus();
  }
  return status;
}

}  // namespace weft::internal
