#include "tests/faults/echo_service.h"

#include <weft/net.h>
#include <weft/scope.h>
#include <weft/time.h>

#include <array>
#include <memory>
#include <utility>

namespace weft::test {
namespace {

class Notes {
 public:
  explicit Notes(Outcome& outcome) : outcome_(outcome) {}
  // Returns whether it is OK.
  bool note(const absl::Status& status) {
    if (status.ok()) return true;
    const std::lock_guard hold(mutex_);
    outcome_.errors.push_back(status);
    return false;
  }
  void echoed(const absl::Status& talked) {
    if (note(talked)) ++outcome_.echoed;
  }

 private:
  std::mutex mutex_;
  Outcome& outcome_;
};

// Part of the accepting fiber's closure: also when that fiber gets no stack, no client waits for it.
struct CloseAtEnd {
  void operator()(TcpListener* listener) const { listener->close(); }
};
using Listened = std::unique_ptr<TcpListener, CloseAtEnd>;

void accept_all(TcpListener& listener, Notes& notes) {
  Scope connections({.on_error = OnError::kKeepGoing});
  while (true) {
    absl::StatusOr<TcpStream> stream = listener.accept();
    if (stream.ok()) {
      connections.spawn([stream = *std::move(stream)]() mutable { return echo(stream); });
    } else if (stream.status().code() == absl::StatusCode::kAborted &&
               error_number(stream.status()) == 0) {
      break;  // closed
    } else if (notes.note(stream.status()); this_fiber::cancelled()) {
      break;
    }
  }
  notes.note(connections.join());
}

void serve_clients(TcpListener& listener, std::string_view message, Notes& notes,
                   Outcome& outcome) {
  const std::string address = listener.local().to_string();
  Scope scope({.on_error = OnError::kKeepGoing});
  Fiber<void> server =
      scope.spawn([&notes, listening = Listened(&listener)] { accept_all(*listening, notes); });
  std::vector<Fiber<absl::Status>> clients;
  for (int i = 1; i < Outcome::kClients; ++i) {
    clients.push_back(scope.spawn([&] { return talk(address, message); }));
  }
  Fiber<void> sleeper = scope.spawn(
      [&outcome] {
        const Timeout soon(absl::Milliseconds(1));
        outcome.timed_out =
            sleep_for(absl::InfiniteDuration()).code() == absl::StatusCode::kDeadlineExceeded;
      },
      {.name = "sleeper", .stack_size = 64 << 10});
  for (auto& client : clients) notes.echoed(client.join());
  notes.note(sleeper.join());
  notes.echoed(talk(address, message));  // alone: it sends at once, and not in a batch
  listener.close();
  notes.note(server.join());
  static_cast<void>(scope.join());  // the same errors again
}

}  // namespace

absl::Status echo(TcpStream& stream) {
  std::array<std::byte, 64> buffer;
  while (true) {
    absl::StatusOr<std::size_t> n = stream.read(buffer);
    if (!n.ok() || *n == 0) return n.status();
    if (absl::Status s = stream.write_all(std::span(buffer).first(*n)); !s.ok()) return s;
  }
}

absl::Status talk(const std::string& address, std::string_view message) {
  absl::StatusOr<TcpStream> stream = TcpStream::connect(address);
  if (!stream.ok()) return stream.status();
  if (absl::Status s = stream->write_all(message); !s.ok()) return s;
  std::string answer(message.size(), '\0');
  if (absl::Status s = stream->read_exactly(answer); !s.ok()) return s;
  if (absl::Status s = stream->shutdown_write(); !s.ok()) return s;
  std::array<char, 1> rest;
  absl::StatusOr<std::size_t> n = stream->read(rest);
  if (!n.ok()) return n.status();
  if (*n != 0 || answer != message) return absl::DataLossError("another answer: " + answer);
  return absl::OkStatus();
}

Outcome echo_service(std::string_view message, int workers) {
  Outcome outcome;
  Notes notes(outcome);
  Options options;
  options.workers = workers;
  options.handle_signals = false;
  options.prewarm = 4;
  options.log = [](LogLevel, std::string_view) {};
  auto runtime = Runtime::start(options);
  outcome.started = runtime.status();
  if (runtime.ok()) {
    auto listener = TcpListener::bind("127.0.0.1:0");
    if (notes.note(listener.status())) {
      notes.note((*runtime)->block_on([&] { serve_clients(*listener, message, notes, outcome); }));
    }
    notes.note((*runtime)->stop());
  }
  services_ended.fetch_add(1, std::memory_order_relaxed);  // relaxed: a count
  return outcome;
}

}  // namespace weft::test
