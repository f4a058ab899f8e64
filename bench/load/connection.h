// Connection: one socket of the load, and how far its stream has been queued, sent and
// received.
//
// Request k is the bytes [k * size, (k + 1) * size) of the payload, and so is its
// reply. Therefore three positions say everything: received <= sent <= queued.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "bench/load/payload.h"

namespace weft::bench {

struct Connection {
  enum class State {
    kUnopened,
    kConnecting,  // connect is in progress
    kFirst,       // its first request is under way: the server has not yet shown that it accepted
    kOpen,        // takes part in the load, or sits
    kHalfClosed,  // our side has ended; we wait for the server's end
    kClosed,
  };

  State state = State::kUnopened;
  bool idle = false;         // sits after its first request
  bool wants_write = false;  // the socket is full; epoll watches for room
  int fd = -1;
  std::uint32_t number = 0;  // over all threads
  Payload payload;
  std::uint64_t queued = 0;
  std::uint64_t sent = 0;
  std::uint64_t received = 0;
  std::uint64_t moved_ns = 0;  // when bytes last came, or when it began to wait for some
};

// Says in words how `in`, received at connection.received, differs from what was due,
// and whose bytes they look like. `wrong` is the index of the first wrong byte. Slow:
// for the few faults told in full.
std::string describe_wrong_byte(const Connection& connection, std::span<const std::byte> in,
                                std::size_t wrong, std::uint32_t size_bytes,
                                const std::vector<Connection>& all);

}  // namespace weft::bench
