// Client: one thread's share of the load. Plain level-triggered epoll; it knows nothing
// of fibers.
//
//   Client client(options, share, control, faults);
//   client.run();                          // returns when all its connections have ended
//
// The main thread leads all clients through the phases by control.phase and watches
// their counters; a client never decides by itself that the load is over.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <sys/socket.h>

#include "bench/latency_histogram.h"
#include "bench/load/connection.h"
#include "bench/load/fault_log.h"
#include "bench/load/options.h"

namespace weft::bench {

enum class Phase : int {
  kConnect,  // connect; each connection sends one request
  kLoad,     // send all the time
  kMeasure,  // the same, and latencies are recorded
  kFinish,   // send nothing new, take the replies that are due, end every connection in order
  kAbandon,  // close at once
};

struct Control {
  // Written by the main thread only. Relaxed everywhere: it publishes no other data,
  // and a client may see a new phase a little late.
  std::atomic<Phase> phase{Phase::kConnect};
};

// The server's address, ready for connect().
struct Target {
  sockaddr_storage address{};
  socklen_t length = 0;
};

// What one client does of the whole.
struct Share {
  Target target;
  std::uint32_t first_number = 0;
  std::uint32_t connections = 0;
  std::uint32_t idle = 0;
  std::uint64_t budget = 0;  // requests in the load; the largest number when there is no limit
  double connects_per_second = 0;  // 0: no limit
};

class Client {
 public:
  // Written by the client, read by the main thread while it runs. Relaxed on both
  // sides: they are only figures; what the main thread needs whole it reads after
  // joining the client's thread.
  struct alignas(64) Counters {
    std::atomic<std::uint64_t> replies{0};  // of the load: the first one on each connection apart
    std::atomic<std::uint64_t> unanswered{0};  // drain check: requests begun and never answered
    std::atomic<std::uint64_t> lost{0};  // requests of the budget that nobody will answer any more
    std::atomic<std::uint32_t> answered{0};  // connections past their first request
    std::atomic<std::uint32_t> ended{0};     // connections closed, in order or not
  };

  Client(const Options& options, const Share& share, const Control& control, FaultLog& faults);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void run();

  const Counters& counters() const { return counters_; }
  const LatencyHistogram& latency() const { return latency_; }  // after run() only

 private:
  void open_more();
  void open(Connection& connection);
  void follow_phase();
  void handle(Connection& connection, std::uint32_t events);
  void finish_connect(Connection& connection);
  void receive(Connection& connection);
  void take_replies(Connection& connection, std::uint64_t before, std::uint64_t now);
  void take_end(Connection& connection);
  void take_reset(Connection& connection, int error);
  void queue(Connection& connection, std::uint64_t requests, std::uint64_t now);
  void flush(Connection& connection);
  void watch(Connection& connection, bool for_write);
  void end_own_side_if_done(Connection& connection);
  void close_connection(Connection& connection);
  void fail(Connection& connection, Fault fault, std::string_view what);
  void count_unanswered(Connection& connection);
  void sweep_for_stalls(std::uint64_t now);
  bool waits(const Connection& connection) const;
  std::uint64_t& sent_at(const Connection& connection, std::uint64_t request);
  std::uint64_t requests_begun(const Connection& connection) const;

  const Options& options_;
  const Share share_;
  const Control& control_;
  FaultLog& faults_;
  Phase phase_ = Phase::kConnect;  // as of this turn
  int epoll_ = -1;
  std::vector<Connection> connections_;
  std::vector<std::uint64_t> sent_at_;  // options.pipeline times for each connection
  std::vector<std::byte> in_;
  std::vector<std::byte> out_;
  std::uint32_t next_to_open_ = 0;
  std::uint32_t in_setup_ = 0;  // opened, first request not yet answered
  std::uint64_t connect_started_ns_ = 0;
  std::uint64_t budget_;
  LatencyHistogram latency_;
  Counters counters_;
};

}  // namespace weft::bench
