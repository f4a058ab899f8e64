#include "runtime/sched/status.h"

#include <cerrno>
#include <charconv>
#include <cstring>

#include <absl/strings/cord.h>

namespace weft::sched {
namespace {

constexpr char kErrnoUrl[] = "weft/errno";
constexpr char kOthersUrl[] = "weft/other_errors";

absl::StatusCode code_of(int error) {
  switch (error) {
    case EACCES:
    case EPERM:
      return absl::StatusCode::kPermissionDenied;
    case EADDRINUSE:
    case EEXIST:
      return absl::StatusCode::kAlreadyExists;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
    case ENOSPC:
      return absl::StatusCode::kResourceExhausted;
    case ENOENT:
      return absl::StatusCode::kNotFound;
    case EINVAL:
    case EAFNOSUPPORT:
    case ENAMETOOLONG:
      return absl::StatusCode::kInvalidArgument;
    case EADDRNOTAVAIL:
    case EBADF:
    case ENOTCONN:
    case EISCONN:
    case EPIPE:
      return absl::StatusCode::kFailedPrecondition;
    case ECONNABORTED:
    case ECONNRESET:
      return absl::StatusCode::kAborted;
    case ENOSYS:
    case EOPNOTSUPP:
      return absl::StatusCode::kUnimplemented;
    case ETIMEDOUT:  // a peer that does not answer, not a deadline of ours
    case ECONNREFUSED:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ENETDOWN:
      return absl::StatusCode::kUnavailable;
    default:
      return absl::StatusCode::kUnknown;
  }
}

}  // namespace

absl::Status status_of(Interruption why) {
  switch (why) {
    case Interruption::kNone:
      break;
    case Interruption::kCancelled:
      return absl::Status(absl::StatusCode::kCancelled, "");
    case Interruption::kDeadlineExceeded:
      return absl::Status(absl::StatusCode::kDeadlineExceeded, "");
  }
  return absl::OkStatus();
}

bool is_interruption(const absl::Status& status) {
  return status.code() == absl::StatusCode::kCancelled ||
         status.code() == absl::StatusCode::kDeadlineExceeded;
}

absl::Status errno_status(std::string_view operation, int error) {
  if (error < 0) error = -error;
  char buffer[128];
  const char* text = strerror_r(error, buffer, sizeof buffer);
  std::string message(operation);
  message += ": ";
  message += text;
  absl::Status status(code_of(error), message);
  status.SetPayload(kErrnoUrl, absl::Cord(std::to_string(error)));
  return status;
}

int errno_of(const absl::Status& status) {
  const auto payload = status.GetPayload(kErrnoUrl);
  if (!payload.has_value()) return 0;
  const std::string digits(*payload);
  int error = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), error);
  return error;
}

absl::Status deep_copy(const absl::Status& status) {
  const auto message = status.message();
  absl::Status copy(status.code(), std::string(message.data(), message.size()));
  status.ForEachPayload([&copy](auto url, const absl::Cord& payload) {
    copy.SetPayload(url, absl::Cord(std::string(payload)));
  });
  return copy;
}

absl::Status with_others(absl::Status first, std::span<const absl::Status> others,
                         std::size_t other_count) {
  if (other_count == 0) return first;
  std::string text;
  for (const absl::Status& other : others) {
    text += other.ToString();
    text += '\n';
  }
  if (other_count > others.size()) {
    text += "and " + std::to_string(other_count - others.size()) + " more\n";
  }
  first.SetPayload(kOthersUrl, absl::Cord(text));
  return first;
}

}  // namespace weft::sched
