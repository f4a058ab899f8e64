// A small service from start to stop, for tests that make its calls fail: two workers, a listener, clients
// that are echoed, a fiber with a stack of its own size, a timeout, an orderly end.
//
//   const test::Outcome outcome = test::echo_service();
//   CHECK(outcome.whole());
//
// Promises: ends, whatever is refused to it, as long as not everything is refused for ever. Never asserts.
#pragma once

#include <weft/net.h>
#include <weft/runtime.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/status.h>

namespace weft::test {

struct Outcome {
  static constexpr int kClients = 4;

  absl::Status started;              // what Runtime::start() said
  std::vector<absl::Status> errors;  // whatever else was refused to anybody
  int echoed = 0;                    // clients that got back what they had sent
  bool timed_out = false;            // the fiber that waits for its timeout

  bool whole() const { return started.ok() && errors.empty() && echoed == kClients && timed_out; }
  std::string text() const {
    std::string all = started.ok() ? "" : "start: " + started.ToString() + "\n";
    for (const absl::Status& error : errors) all += error.ToString() + "\n";
    return all;
  }
};

// How many times the service has ended, for a watchdog.
inline std::atomic<std::uint64_t> services_ended{0};

// Its two sides: a handler, and a client that says one message and wants it back, and then the end.
absl::Status echo(TcpStream& stream);
absl::Status talk(const std::string& address, std::string_view message);

Outcome echo_service(std::string_view message = "woven", int workers = 2);

}  // namespace weft::test
