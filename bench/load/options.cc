// The command line of echo_load. Every value is read by one of two functions that
// accept the whole text or nothing, and name the flag and the allowed range when they
// refuse.
#include "bench/load/options.h"

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <random>
#include <string_view>

#include <getopt.h>

namespace weft::bench {

const char kHelpText[] =
    R"(echo_load: load an echo server over TCP and check every byte that comes back.

  echo_load --port 7000 --connections 500 --seconds 5

where
  --address A            numeric IPv4 or IPv6 address (127.0.0.1)
  --port P               required

what
  --connections N        connections that send all the time (50)
  --idle N               further connections that send one request and then sit (0)
  --size BYTES           of a request and of its reply (64)
  --pipeline N           requests in flight on a connection (1)
  --threads N            threads that send and receive (1)
  --max-connect-rate N   new connections a second (no limit)
  --seed N               of the bytes that are sent (drawn and printed)

how long
  --seconds S            measured time (5); the limit with --count (60) and --drain-check (30)
  --count N              stop after N measured requests; no warm-up
  --warmup S             before measuring (0.5)
  --stall S              fail a connection on which nothing moves for so long (5)

the server
  --server-pid PID       print its CPU time per request
  --drain-check          send until the server ends each connection; no reply may be cut
  --terminate-after S    with both of the above: send the server SIGTERM after S seconds

output
  --json                 one JSON object on stdout instead of text
  --help

The server knows bytes and not requests, so a reply counts as cut only where the server reads a
whole request at once: for the drain check keep --size times --pipeline below its buffer.

Each connection first sends one request and waits for its reply; only when all have been
answered does the load begin. Exit status: 0 all well, 1 the server failed, 2 wrong usage or
not possible here.
)";

namespace {

enum Flag : int {
  kAddress = 1,
  kPort,
  kConnections,
  kIdle,
  kSize,
  kPipeline,
  kThreads,
  kMaxConnectRate,
  kSeed,
  kSeconds,
  kCount,
  kWarmup,
  kStall,
  kServerPid,
  kDrainCheck,
  kTerminateAfter,
  kJson,
  kHelp,
};

constexpr option kFlags[] = {
    {"address", required_argument, nullptr, kAddress},
    {"port", required_argument, nullptr, kPort},
    {"connections", required_argument, nullptr, kConnections},
    {"idle", required_argument, nullptr, kIdle},
    {"size", required_argument, nullptr, kSize},
    {"pipeline", required_argument, nullptr, kPipeline},
    {"threads", required_argument, nullptr, kThreads},
    {"max-connect-rate", required_argument, nullptr, kMaxConnectRate},
    {"seed", required_argument, nullptr, kSeed},
    {"seconds", required_argument, nullptr, kSeconds},
    {"count", required_argument, nullptr, kCount},
    {"warmup", required_argument, nullptr, kWarmup},
    {"stall", required_argument, nullptr, kStall},
    {"server-pid", required_argument, nullptr, kServerPid},
    {"drain-check", no_argument, nullptr, kDrainCheck},
    {"terminate-after", required_argument, nullptr, kTerminateAfter},
    {"json", no_argument, nullptr, kJson},
    {"help", no_argument, nullptr, kHelp},
    {nullptr, 0, nullptr, 0},
};

constexpr std::uint64_t kMaxConnections = 1'000'000;
constexpr std::uint64_t kMaxSizeBytes = 64 << 20;
constexpr double kMaxSeconds = 86'400;

class Reader {
 public:
  // Returns the first complaint, or nothing.
  const std::string& error() const { return error_; }

  template <class Integer>
  void integer(const char* flag, std::uint64_t least, std::uint64_t most, Integer& out) {
    const std::string_view text = optarg;
    std::uint64_t value = 0;
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (code != std::errc() || end != text.data() + text.size() || value < least || value > most) {
      complain(flag,
               "a whole number from " + std::to_string(least) + " to " + std::to_string(most));
      return;
    }
    out = static_cast<Integer>(value);
  }

  void duration(const char* flag, double least_seconds, double& out) {
    char* end = nullptr;
    const double value = std::strtod(optarg, &end);
    if (end == optarg || *end != '\0' || !std::isfinite(value) || value < least_seconds ||
        value > kMaxSeconds) {
      complain(flag,
               least_seconds > 0 ? "seconds above 0, at most a day" : "seconds, at most a day");
      return;
    }
    out = value;
  }

 private:
  void complain(const char* flag, const std::string& wanted) {
    if (error_.empty()) error_ = std::string(flag) + " " + optarg + ": expected " + wanted;
  }

  std::string error_;
};

struct Given {
  bool seconds = false;
  bool warmup = false;
  bool seed = false;
};

void read_flag(int flag, Options& o, Given& given, Reader& read) {
  constexpr double kLeastSeconds = 1e-3;
  constexpr auto kMax32 = std::numeric_limits<std::uint32_t>::max();
  constexpr auto kMax64 = std::numeric_limits<std::uint64_t>::max();
  switch (flag) {
    case kAddress:
      o.address = optarg;
      break;
    case kPort:
      read.integer("--port", 1, 65'535, o.port);
      break;
    case kConnections:
      read.integer("--connections", 1, kMaxConnections, o.connections);
      break;
    case kIdle:
      read.integer("--idle", 0, kMaxConnections, o.idle);
      break;
    case kSize:
      read.integer("--size", 1, kMaxSizeBytes, o.size_bytes);
      break;
    case kPipeline:
      read.integer("--pipeline", 1, 65'536, o.pipeline);
      break;
    case kThreads:
      read.integer("--threads", 1, 1'024, o.threads);
      break;
    case kMaxConnectRate:
      read.integer("--max-connect-rate", 1, kMax32, o.max_connect_rate);
      break;
    case kSeed:
      given.seed = true;
      read.integer("--seed", 0, kMax64, o.seed);
      break;
    case kSeconds:
      given.seconds = true;
      read.duration("--seconds", kLeastSeconds, o.seconds);
      break;
    case kCount:
      read.integer("--count", 1, kMax64, o.count);
      break;
    case kWarmup:
      given.warmup = true;
      read.duration("--warmup", 0, o.warmup_seconds);
      break;
    case kStall:
      read.duration("--stall", kLeastSeconds, o.stall_seconds);
      break;
    case kServerPid:
      read.integer("--server-pid", 1, 1 << 30, o.server_pid);
      break;
    case kDrainCheck:
      o.drain_check = true;
      break;
    case kTerminateAfter:
      read.duration("--terminate-after", 0, o.terminate_after_seconds);
      break;
    case kJson:
      o.json = true;
      break;
    default:
      break;
  }
}

// Returns what is wrong with the flags together, or nothing; sets the defaults that
// depend on others.
std::string settle(Options& o, const Given& given) {
  if (o.port == 0) return "--port is required";
  if (o.threads > o.connections) return "--threads must not exceed --connections";
  if (o.count != 0 && o.drain_check) return "--count and --drain-check exclude each other";
  if (o.count != 0 && given.warmup) return "--count and --warmup exclude each other";
  if (o.terminate_after_seconds >= 0 && (!o.drain_check || o.server_pid == 0)) {
    return "--terminate-after needs --drain-check and --server-pid";
  }
  if (o.count != 0 || o.drain_check) o.warmup_seconds = 0;
  if (!given.seconds && o.count != 0) o.seconds = 60;
  if (!given.seconds && o.drain_check) o.seconds = 30;
  if (!given.seed) o.seed = std::random_device()();
  return {};
}

}  // namespace

ParseResult parse_options(int argc, char** argv) {
  Options options;
  Given given;
  Reader reader;
  opterr = 0;
  optind = 0;  // glibc: start from the beginning, also when called a second time
  for (;;) {
    const int at = optind == 0 ? 1 : optind;
    const int flag = getopt_long(argc, argv, ":", kFlags, nullptr);
    if (flag == -1) break;
    if (flag == kHelp) return {Parsed::kHelp, options, {}};
    if (flag == ':') return {Parsed::kWrong, options, std::string(argv[at]) + " needs a value"};
    if (flag == '?') {
      return {Parsed::kWrong, options, "unknown or ambiguous flag " + std::string(argv[at])};
    }
    read_flag(flag, options, given, reader);
    if (!reader.error().empty()) return {Parsed::kWrong, options, reader.error()};
  }
  if (optind < argc) {
    return {Parsed::kWrong, options, "unexpected argument " + std::string(argv[optind])};
  }
  std::string error = settle(options, given);
  const Parsed parsed = error.empty() ? Parsed::kRun : Parsed::kWrong;
  return {parsed, options, std::move(error)};
}

}  // namespace weft::bench
