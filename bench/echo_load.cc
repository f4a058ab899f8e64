// echo_load: how many echo requests a second, how fast, at what cost to the server, and
// is every byte right?
//
//   echo_load --port 7000 --connections 500 --server-pid "$pid"
//
// It shares no code with the runtime, so that a mistake there cannot hide itself here.
// The clients run in threads of their own; the main thread leads them through the
// phases. It reads the clock, the server's CPU time and the count of replies at the
// same moment, before and after the measured time, so that nothing depends on when a
// client notices the change of phase.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "bench/load/client.h"
#include "bench/load/clocks.h"
#include "bench/load/fault_log.h"
#include "bench/load/options.h"
#include "bench/load/report.h"

namespace weft::bench {
namespace {

constexpr int kServerFailed = 1;
constexpr int kCannotRun = 2;

std::optional<Target> target_of(const Options& options) {
  Target target;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&target.address);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&target.address);
  if (inet_pton(AF_INET, options.address.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(options.port);
    target.length = sizeof *v4;
    return target;
  }
  if (inet_pton(AF_INET6, options.address.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(options.port);
    target.length = sizeof *v6;
    return target;
  }
  return std::nullopt;
}

// Returns whether this process may have `wanted` descriptors, after raising its own
// limit.
bool raise_descriptor_limit(rlim_t wanted, rlim_t& available) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  getrlimit(RLIMIT_NOFILE, &limit);
  available = limit.rlim_cur;
  return limit.rlim_cur >= wanted;
}

// What is read at the same moment, at either end of the measured time.
struct Sample {
  std::uint64_t time_ns = 0;
  std::uint64_t replies = 0;
  std::uint64_t load_cpu_ns = 0;
  std::optional<std::uint64_t> server_cpu_ns;
};

class Load {
 public:
  Load(const Options& options, const Target& target) : options_(options) {
    std::uint32_t first_number = 0;
    for (std::uint32_t i = 0; i < options.threads; ++i) {
      Share share;
      share.target = target;
      share.first_number = first_number;
      share.connections = part_of(options.connections, i);
      share.idle = part_of(options.idle, i);
      share.budget = options.count == 0 ? std::numeric_limits<std::uint64_t>::max()
                                        : part_of(options.count, i);
      share.connects_per_second = static_cast<double>(options.max_connect_rate) / options.threads;
      first_number += share.connections + share.idle;
      clients_.push_back(std::make_unique<Client>(options, share, control_, faults_));
    }
  }

  int run() {
    std::vector<std::thread> threads;
    for (auto& client : clients_) threads.emplace_back([&client] { client->run(); });
    lead();
    for (auto& thread : threads) thread.join();
    for (const auto& client : clients_) {
      result_.latency.merge(client->latency());
      result_.unanswered += client->counters().unanswered.load(std::memory_order_relaxed);
    }
    clear_progress();
    for (const std::string& text : faults_.told())
      std::fprintf(stderr, "echo_load: %s\n", text.c_str());
    const auto report = options_.json ? json_report : text_report;
    std::fputs(report(options_, result_, faults_).c_str(), stdout);
    return faults_.total() == 0 ? 0 : kServerFailed;
  }

 private:
  void lead() {
    // Clients give up by themselves on connections that stall, so this needs no limit
    // of its own.
    while (answered() + ended() < all()) tick("connecting");
    if (answered() > 0) {
      enter(Phase::kLoad);
      wait_until(now_ns() + nanoseconds_of(options_.warmup_seconds), "warming up");
      const Sample before = sample();
      enter(Phase::kMeasure);
      if (options_.drain_check) {
        wait_for_drain();
      } else {
        wait_until(now_ns() + nanoseconds_of(options_.seconds), "measuring");
      }
      measure(before, sample());
    }
    if (options_.drain_check && ended() < all()) return;
    enter(Phase::kFinish);
    while (ended() < all()) tick("ending");
  }

  // The measured time ends early when the count is reached or nobody is left to send.
  void wait_until(std::uint64_t deadline_ns, const char* what) {
    while (now_ns() < deadline_ns && ended() < all() && !count_reached()) tick(what);
  }

  void wait_for_drain() {
    const std::uint64_t start_ns = now_ns();
    const std::uint64_t deadline_ns = start_ns + nanoseconds_of(options_.seconds);
    bool terminate = options_.terminate_after_seconds >= 0;
    const std::uint64_t terminate_ns =
        terminate ? start_ns + nanoseconds_of(options_.terminate_after_seconds) : 0;
    while (now_ns() < deadline_ns && ended() < all()) {
      if (terminate && now_ns() >= terminate_ns) {
        kill(options_.server_pid, SIGTERM);
        terminate = false;
      }
      tick("waiting for the server to end");
    }
    if (ended() < all()) {
      faults_.count(Fault::kStall);
      faults_.tell("the server has not ended " + std::to_string(all() - ended()) + " connections");
      enter(Phase::kAbandon);
    }
  }

  void measure(const Sample& before, const Sample& after) {
    result_.requests = after.replies - before.replies;
    result_.seconds = static_cast<double>(after.time_ns - before.time_ns) / 1e9;
    result_.load_cpu_ns = after.load_cpu_ns - before.load_cpu_ns;
    if (before.server_cpu_ns && after.server_cpu_ns) {
      result_.server_cpu_ns = *after.server_cpu_ns - *before.server_cpu_ns;
    }
    if (options_.count != 0 && result_.requests < options_.count && faults_.total() == 0) {
      faults_.count(Fault::kStall);
      faults_.tell("the count was not reached in " + std::to_string(options_.seconds) + " s");
    }
  }

  Sample sample() const {
    Sample sample;
    if (options_.server_pid != 0) sample.server_cpu_ns = cpu_time_ns(options_.server_pid);
    sample.load_cpu_ns = cpu_time_ns(0).value_or(0);
    sample.time_ns = now_ns();
    sample.replies = replies();
    return sample;
  }

  void enter(Phase phase) { control_.phase.store(phase, std::memory_order_relaxed); }

  // Waits a little and shows how far we are, if somebody looks.
  void tick(const char* what) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    if (isatty(STDERR_FILENO) == 0) return;
    const std::uint64_t now = now_ns();
    if (now - shown_ns_ < 250'000'000) return;
    const double seconds = static_cast<double>(now - shown_ns_) / 1e9;
    const double rate = static_cast<double>(replies() - shown_replies_) / seconds;
    std::fprintf(stderr, "\r\033[K%s: %u of %u connections, %.0f requests/s, %llu errors", what,
                 answered() - std::min(answered(), ended()), all(), shown_ns_ == 0 ? 0 : rate,
                 static_cast<unsigned long long>(faults_.total()));
    shown_ns_ = now;
    shown_replies_ = replies();
  }

  void clear_progress() const {
    if (shown_ns_ != 0) std::fputs("\r\033[K", stderr);
  }

  bool count_reached() const {
    return options_.count != 0 && replies() + sum(&Client::Counters::lost) >= options_.count;
  }
  std::uint32_t all() const { return options_.connections + options_.idle; }

  std::uint64_t replies() const { return sum(&Client::Counters::replies); }
  std::uint32_t answered() const { return sum(&Client::Counters::answered); }
  std::uint32_t ended() const { return sum(&Client::Counters::ended); }

  template <class T>
  T sum(std::atomic<T> Client::Counters::*counter) const {
    T total = 0;
    for (const auto& client : clients_) {
      total += (client->counters().*counter).load(std::memory_order_relaxed);
    }
    return total;
  }

  template <class T>
  T part_of(T whole, std::uint32_t index) const {
    return whole / options_.threads + (index < whole % options_.threads ? 1 : 0);
  }

  const Options& options_;
  Control control_;
  FaultLog faults_;
  std::vector<std::unique_ptr<Client>> clients_;
  Result result_;
  std::uint64_t shown_ns_ = 0;
  std::uint64_t shown_replies_ = 0;
};

int echo_load(int argc, char** argv) {
  const ParseResult parsed = parse_options(argc, argv);
  if (parsed.parsed == Parsed::kHelp) {
    std::fputs(kHelpText, stdout);
    return 0;
  }
  const Options& options = parsed.options;
  std::string error = parsed.error;
  const std::optional<Target> target = target_of(options);
  if (error.empty() && !target) error = "--address " + options.address + ": not a numeric address";
  if (error.empty() && options.server_pid != 0 && !cpu_time_ns(options.server_pid)) {
    error = "--server-pid " + std::to_string(options.server_pid) + ": no such process";
  }
  constexpr rlim_t kOwnDescriptors = 16;
  const rlim_t wanted =
      rlim_t{options.connections} + options.idle + options.threads + kOwnDescriptors;
  rlim_t available = 0;
  if (error.empty() && !raise_descriptor_limit(wanted, available)) {
    error = std::to_string(wanted) + " descriptors are needed, and only " +
            std::to_string(available) + " may be had (ulimit -n)";
  }
  if (!error.empty()) {
    std::fprintf(stderr, "echo_load: %s\nTry: echo_load --help\n", error.c_str());
    return kCannotRun;
  }
  return Load(options, *target).run();
}

}  // namespace
}  // namespace weft::bench

int main(int argc, char** argv) { return weft::bench::echo_load(argc, argv); }
