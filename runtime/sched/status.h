// What the scheduler says in absl::Status terms.
#pragma once

#include <new>
#include <span>
#include <string>
#include <string_view>

#include <absl/status/status.h>

#include "runtime/sched/level.h"

namespace weft::sched {

// kCancelled or kDeadlineExceeded without a text: no allocation. OK for kNone.
absl::Status status_of(Interruption why);
bool is_interruption(const absl::Status& status);

// "operation: errno text", with the errno as a payload that error_number() finds.
// `error` is positive or negative.
absl::Status errno_status(std::string_view operation, int error);
int errno_of(const absl::Status& status);

// A status that shares no memory with `status`, for crossing from fiber to fiber: Debian's Abseil is
// not instrumented, and a shared reference count would look like a race to TSan.
absl::Status deep_copy(const absl::Status& status);

// What `make` returns; without memory for its text the code alone, which needs none.
template <class Make>
absl::Status status_or_bare(absl::StatusCode code, Make make) noexcept {
  try {
    return make();
  } catch (const std::bad_alloc&) {
    return absl::Status(code, "");
  }
}

// `first` with the texts of `others` as a payload, and how many more there were.
absl::Status with_others(absl::Status first, std::span<const absl::Status> others,
                         std::size_t other_count);

}  // namespace weft::sched
