// FaultLog: what the server did wrong, counted by kind, with the first few told in
// full.
//
// Call from: any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace weft::bench {

enum class Fault : std::size_t {
  kNotConnected,  // refused, or no descriptor or port was to be had
  kWrongByte,     // a byte that is not the one sent at that position, or one that nobody sent
  kEarlyClose,    // the server ended a connection that was still in use
  kReset,         // the server ended it without order, so that bytes may have been lost
  kStall,         // nothing moved for too long
  kCutReply,      // drain check: a reply began and never became complete
};
inline constexpr std::array<std::string_view, 6> kFaultNames = {
    "not_connected", "wrong_bytes", "early_closes", "resets", "stalls", "cut_replies"};

class FaultLog {
 public:
  static constexpr std::size_t kToldInFull = 5;

  // Returns whether it is one of the first few, whose text is worth more work.
  bool count(Fault fault) {
    const std::lock_guard lock(mutex_);
    counts_[static_cast<std::size_t>(fault)] += 1;
    total_ += 1;
    return total_ <= kToldInFull;
  }

  void tell(std::string text) {
    const std::lock_guard lock(mutex_);
    told_.push_back(std::move(text));
  }

  std::uint64_t count_of(Fault fault) const {
    const std::lock_guard lock(mutex_);
    return counts_[static_cast<std::size_t>(fault)];
  }

  std::uint64_t total() const {
    const std::lock_guard lock(mutex_);
    return total_;
  }

  std::vector<std::string> told() const {
    const std::lock_guard lock(mutex_);
    return told_;
  }

 private:
  mutable std::mutex mutex_;
  std::array<std::uint64_t, kFaultNames.size()> counts_{};
  std::uint64_t total_ = 0;
  std::vector<std::string> told_;
};

}  // namespace weft::bench
