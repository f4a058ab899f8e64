// What an error says: helpers around absl::Status.
//
//   absl::StatusOr<std::size_t> n = stream.read(buffer);
//   if (weft::is_interrupt(n.status())) return n.status();          // cancelled, or past the deadline
//   if (weft::error_number(n.status()) == ECONNRESET) ...           // the errno behind it
//
// Promises: kCancelled and kDeadlineExceeded made by the runtime carry no text and cost no allocation.
// Every other error says "operation: errno text".
#pragma once

#include <type_traits>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

namespace weft {

// The errno behind a status, 0 if there is none. It is a payload, so it survives wrapping the text.
// Call from: any thread. Never parks.
int error_number(const absl::Status& status);

// True for the end of a stream before everything asked for had come.
// Call from: any thread. Never parks.
bool is_closed(const absl::Status& status);

// True for kCancelled and kDeadlineExceeded. Call from: any thread. Never parks.
bool is_interrupt(const absl::Status& status);

// What joining a function that returns T gives: every result has room for an error.
template <class T>
struct JoinedT {
  using type = absl::StatusOr<T>;
};
template <>
struct JoinedT<void> {
  using type = absl::Status;
};
template <>
struct JoinedT<absl::Status> {
  using type = absl::Status;
};
template <class T>
struct JoinedT<absl::StatusOr<T>> {
  using type = absl::StatusOr<T>;
};
template <class T>
using Joined = typename JoinedT<T>::type;

}  // namespace weft
