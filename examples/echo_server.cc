// An echo server: plain blocking code, one fiber per connection.
//
//   echo_server --address 127.0.0.1 --port 7000 --workers 2 --idle_timeout 30s
//
// SIGTERM and SIGINT stop accepting, let replies that are being written go out, and end idle connections.
#include <weft/net.h>
#include <weft/runtime.h>
#include <weft/time.h>

#include <array>
#include <cstdio>
#include <string>

#include <absl/flags/flag.h>
#include <absl/flags/parse.h>
#include <absl/flags/usage.h>

ABSL_FLAG(std::string, address, "127.0.0.1", "where to listen: an IPv4 address, or [IPv6]");
ABSL_FLAG(std::uint16_t, port, 7000, "the port; 0 takes a free one");
ABSL_FLAG(int, workers, 0, "kernel threads; 0: as many as there are CPUs to use");
ABSL_FLAG(std::size_t, max_connections, 10'000, "beyond it clients wait in the backlog");
ABSL_FLAG(absl::Duration, idle_timeout, absl::Seconds(60),
          "a silent connection is closed after this");

absl::Status echo(weft::TcpStream& stream) {
  std::array<std::byte, 4096> buffer;
  const absl::Duration idle_limit = absl::GetFlag(FLAGS_idle_timeout);
  weft::Timeout idle(idle_limit);
  weft::EndOnDrain end;
  while (true) {
    absl::StatusOr<std::size_t> n = stream.read(buffer);
    if (!n.ok() || *n == 0) return n.status();
    if (auto s = stream.write_all(std::span(buffer).first(*n)); !s.ok()) return s;
    idle.restart(idle_limit);
  }
}

absl::Status serve() {
  const std::string where =
      absl::GetFlag(FLAGS_address) + ":" + std::to_string(absl::GetFlag(FLAGS_port));
  auto listener = weft::TcpListener::bind(where);
  if (!listener.ok()) return listener.status();
  std::printf("listening on %s\n", listener->local().to_string().c_str());
  std::fflush(stdout);
  return weft::serve(*listener, echo, {.max_connections = absl::GetFlag(FLAGS_max_connections)});
}

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("a TCP echo server on fibers");
  absl::ParseCommandLine(argc, argv);
  weft::Options options{.workers = absl::GetFlag(FLAGS_workers)};
  options.log = [](weft::LogLevel, std::string_view line) {
    std::fprintf(stderr, "%.*s\n", static_cast<int>(line.size()), line.data());
  };
  return weft::run(serve, options);
}
