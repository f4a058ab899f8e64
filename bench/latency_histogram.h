// LatencyHistogram: percentiles of many durations in a fixed 58 KiB, each within 1 % of
// the truth.
//
//   LatencyHistogram latency;
//   latency.record(12'345);
//   print(latency.percentile(0.99));     // nanoseconds
//
// Requires: one thread at a time.
// Promises: percentile(q) is never below the exact value of that rank and at most 1/128
// above it; max() is exact.
//
// Every power of two is cut into 128 buckets of equal width; below 128 each value has a
// bucket of its own.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace weft::bench {

class LatencyHistogram {
 public:
  void record(std::uint64_t nanoseconds) {
    buckets_[bucket_of(nanoseconds)] += 1;
    count_ += 1;
    max_ = std::max(max_, nanoseconds);
  }

  void merge(const LatencyHistogram& other) {
    for (std::size_t i = 0; i < buckets_.size(); ++i) buckets_[i] += other.buckets_[i];
    count_ += other.count_;
    max_ = std::max(max_, other.max_);
  }

  // Returns the value that the share `quantile` (0 to 1) of all recorded values do not
  // exceed; 0 when nothing was recorded.
  std::uint64_t percentile(double quantile) const {
    const auto wanted = std::ceil(quantile * static_cast<double>(count_));
    const auto rank = std::max<std::uint64_t>(1, static_cast<std::uint64_t>(wanted));
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < buckets_.size(); ++i) {
      seen += buckets_[i];
      if (seen >= rank) return std::min(last_value_of(i), max_);
    }
    return max_;
  }

  std::uint64_t count() const { return count_; }
  std::uint64_t max() const { return max_; }

 private:
  static constexpr int kBitsKept = 7;
  static constexpr std::size_t kPerPower = std::size_t{1} << kBitsKept;
  static constexpr std::size_t kBuckets = (64 - kBitsKept + 1) * kPerPower;

  // The value's leading eight bits are its place; `shift` bits below them are given up.
  static std::size_t bucket_of(std::uint64_t value) {
    if (value < kPerPower) return static_cast<std::size_t>(value);
    const int shift = std::bit_width(value) - 1 - kBitsKept;
    return static_cast<std::size_t>(shift) * kPerPower + static_cast<std::size_t>(value >> shift);
  }

  static std::uint64_t last_value_of(std::size_t bucket) {
    if (bucket < 2 * kPerPower) return bucket;
    const std::size_t shift = bucket / kPerPower - 1;
    const std::uint64_t leading = bucket - shift * kPerPower;
    return ((leading + 1) << shift) - 1;
  }

  std::array<std::uint64_t, kBuckets> buckets_{};
  std::uint64_t count_ = 0;
  std::uint64_t max_ = 0;
};

}  // namespace weft::bench
