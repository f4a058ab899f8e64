#include <weft/stream.h>

#include <optional>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/base/plant.h"
#include "runtime/sched/fiber.h"
#include "runtime/sched/worker.h"

namespace weft {

namespace {

// While one lives, a drain does not end the fiber's reads: it ends those that have consumed nothing, and
// this is the rest of something.
class ThroughDrain {
 public:
  ThroughDrain() : fiber_(sched::current_fiber()) {
    if (fiber_ != nullptr) kept_ = std::exchange(fiber_->frame->ends_on_drain, 0);
  }
  ~ThroughDrain() {
    if (fiber_ != nullptr) fiber_->frame->ends_on_drain = kept_;
  }
  ThroughDrain(const ThroughDrain&) = delete;
  ThroughDrain& operator=(const ThroughDrain&) = delete;

 private:
  sched::FiberBlock* fiber_;
  std::uint32_t kept_ = 0;
};

}  // namespace

absl::Status Stream::write_all(Bytes bytes) {
  std::span<const std::byte> rest = bytes;
  while (!rest.empty()) {
    absl::StatusOr<std::size_t> written = write(rest);
    if (!written.ok()) return written.status();
    const bool repeat = base::planted(71) && *written > 1 && *written < rest.size();
    rest = rest.subspan(*written - (repeat ? 1 : 0));
  }
  return absl::OkStatus();
}

absl::Status Stream::read_exactly(MutableBytes buffer) {
  std::span<std::byte> rest = buffer;
  std::optional<ThroughDrain> begun;
  while (!rest.empty()) {
    if (rest.size() < buffer.size() && !begun) begun.emplace();
    absl::StatusOr<std::size_t> got = read(rest);
    if (!got.ok()) return got.status();
    if (*got == 0) return absl::OutOfRangeError("read_exactly: the stream ended early");
    rest = rest.subspan(*got);
  }
  return absl::OkStatus();
}

EndOnDrain::EndOnDrain() {
  sched::FiberBlock* self = sched::current_fiber();
  WEFT_CHECK(self != nullptr,
             "an EndOnDrain is about the reads of a fiber: there is none on this thread");
  ++self->frame->ends_on_drain;
}

EndOnDrain::~EndOnDrain() { --sched::current_fiber()->frame->ends_on_drain; }

}  // namespace weft
