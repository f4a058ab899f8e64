#include <weft/stream.h>

#include "runtime/base/check.h"
#include "runtime/sched/fiber.h"
#include "runtime/sched/worker.h"

namespace weft {

absl::Status Stream::write_all(Bytes bytes) {
  std::span<const std::byte> rest = bytes;
  while (!rest.empty()) {
    absl::StatusOr<std::size_t> written = write(rest);
    if (!written.ok()) return written.status();
    rest = rest.subspan(*written);
  }
  return absl::OkStatus();
}

absl::Status Stream::read_exactly(MutableBytes buffer) {
  std::span<std::byte> rest = buffer;
  while (!rest.empty()) {
    absl::StatusOr<std::size_t> got = read(rest);
    if (!got.ok()) return got.status();
    if (*got == 0) return absl::OutOfRangeError("read_exactly: the stream ended early");
    rest = rest.subspan(*got);
  }
  return absl::OkStatus();
}

EndOnDrain::EndOnDrain() {
  sched::FiberBlock* self = sched::current_fiber();
  WEFT_CHECK(self != nullptr, "an EndOnDrain is about the reads of a fiber: there is none on this thread");
  ++self->frame->ends_on_drain;
}

EndOnDrain::~EndOnDrain() { --sched::current_fiber()->frame->ends_on_drain; }

}  // namespace weft
