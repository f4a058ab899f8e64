// Stream: bytes in order, both ways: a TCP connection, later a pipe, TLS, a test's in-memory pair.
//
//   std::array<std::byte, 4096> buffer;
//   absl::StatusOr<std::size_t> n = stream.read(buffer);      // 0 at the end
//   if (n.ok()) status = stream.write_all(std::span(buffer).first(*n));
//
// Requires: one reader and one writer at a time; a second gets kFailedPrecondition.
// Promises: an operation that completed is reported with its bytes, even if a cancellation or a deadline
// came at the same time. No byte is lost. What interrupts write_all() or read_exactly() leaves the stream
// torn: close it; who must know how far it came uses write() and read().
#pragma once

#include <weft/bytes.h>

#include <cstddef>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

namespace weft {

class Stream {
 public:
  virtual ~Stream() = default;

  // Returns at least one byte, or 0 at the end. An empty buffer is kInvalidArgument.
  // Call from: a fiber. Parks.
  [[nodiscard]] virtual absl::StatusOr<std::size_t> read(MutableBytes buffer) = 0;
  // Writes at least one byte, perhaps not all. Call from: a fiber. Parks.
  [[nodiscard]] virtual absl::StatusOr<std::size_t> write(Bytes bytes) = 0;
  // The peer sees the end of what we write; reading goes on. Call from: any thread. Never parks.
  virtual absl::Status shutdown_write() = 0;
  // Ends the stream; fibers that read or write it get kAborted "closed". Waits for the kernel to let go
  // of their buffers, not for the peer. Call from: any thread. Parks.
  virtual void close() noexcept = 0;

  // Call from: a fiber. Parks.
  [[nodiscard]] absl::Status write_all(Bytes bytes);
  // Fills the buffer; is_closed() when the end comes first. Call from: a fiber. Parks.
  [[nodiscard]] absl::Status read_exactly(MutableBytes buffer);

 protected:
  Stream() = default;
  Stream(const Stream&) = default;
  Stream& operator=(const Stream&) = default;
};

// While one lives, a drain of the runtime ends reads of its fiber that would wait and have consumed
// nothing, with kCancelled; nothing else: a reply that is being written goes out.
// Call from: a fiber; anywhere else it says so and ends the process.
class EndOnDrain {
 public:
  EndOnDrain();
  ~EndOnDrain();
  EndOnDrain(const EndOnDrain&) = delete;
  EndOnDrain& operator=(const EndOnDrain&) = delete;
};

}  // namespace weft
