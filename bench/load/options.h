// Options: what echo_load was asked to do, from a GNU-style command line.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include <sys/types.h>

namespace weft::bench {

struct Options {
  std::string address = "127.0.0.1";
  std::uint16_t port = 0;
  std::uint32_t connections = 50;
  std::uint32_t idle = 0;
  std::uint32_t size_bytes = 64;
  std::uint32_t pipeline = 1;
  std::uint32_t threads = 1;
  double seconds = 5;
  std::uint64_t count = 0;  // 0: as many as fit into `seconds`
  double warmup_seconds = 0.5;
  double stall_seconds = 5;
  std::uint32_t max_connect_rate = 0;  // 0: no limit
  pid_t server_pid = 0;                // 0: the server's CPU time is not measured
  std::uint64_t seed = 0;
  bool drain_check = false;
  double terminate_after_seconds = -1;  // negative: somebody else ends the server
  bool json = false;
};

enum class Parsed { kRun, kHelp, kWrong };

struct ParseResult {
  Parsed parsed;
  Options options;
  std::string error;  // for kWrong: one line that names the flag
};

// Reads the command line. Never prints and never exits.
ParseResult parse_options(int argc, char** argv);

extern const char kHelpText[];

}  // namespace weft::bench
