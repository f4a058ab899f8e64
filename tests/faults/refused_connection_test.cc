// serve() when the fiber of a connection cannot be had: the client is let go, and its place is free again.
#include <weft/net.h>
#include <weft/scope.h>

#include <cerrno>

#include <catch2/catch.hpp>

#include "runtime/os/system.h"
#include "tests/faults/echo_service.h"
#include "tests/io/loopback.h"

namespace weft {
namespace {

TEST_CASE("refused connection: without a stack for its fiber its place is given back",
          "[faults][K1][serve]") {
  test::TimeLimit time_limit(30);  // a place that is lost is missed for ever
  constexpr int kRefused = 5;
  int refused = 0;
  absl::Status afterwards = absl::UnknownError("not reached"), served = afterwards;
  test::in_runtime(2, [&] {
    auto listener = TcpListener::bind("127.0.0.1:0");
    const std::string address = listener->local().to_string();
    Scope scope;
    // Of a size that nobody else uses, so that the first of them needs a new mapping.
    Fiber<absl::Status> server = scope.spawn([&] {
      return serve(*listener, test::echo, {.max_connections = 2, .stack_size = 64 << 10});
    });
    os::system::arm_fault(os::system::Call::kMmap, 0, ENOMEM, ~0u);
    for (int i = 0; i < kRefused; ++i) refused += test::talk(address, "anybody?").ok() ? 0 : 1;
    os::system::disarm_faults();
    afterwards = test::talk(address, "anybody?");
    listener->close();
    served = server.join();
    static_cast<void>(scope.join());
  });
  CHECK(refused == kRefused);
  CHECK(afterwards.ok());
  CHECK(served.ok());
}

}  // namespace
}  // namespace weft
