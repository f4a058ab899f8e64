#include "bench/latency_histogram.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <vector>

#include <catch2/catch.hpp>

namespace weft::bench {
namespace {

std::uint64_t seed() {
  const char* given = std::getenv("WEFT_SEED");
  return given != nullptr ? std::strtoull(given, nullptr, 0) : std::random_device()();
}

// Spread evenly over the powers of two, so that every width of bucket is met.
std::vector<std::uint64_t> values_of_every_size(std::uint64_t seed, std::size_t count) {
  std::mt19937_64 random(seed);
  std::vector<std::uint64_t> values(count);
  for (auto& value : values) value = random() >> (random() % 64);
  return values;
}

constexpr double kQuantiles[] = {0.0, 0.001, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0};

TEST_CASE("histogram: percentiles are those of the sorted values, at most 1/128 above",
          "[latency_histogram]") {
  const std::uint64_t this_seed = seed();
  INFO("WEFT_SEED=" << this_seed);
  const auto count = GENERATE(std::size_t{1}, std::size_t{2}, std::size_t{10}, std::size_t{10'000});
  std::vector<std::uint64_t> values = values_of_every_size(this_seed, count);
  LatencyHistogram histogram;
  for (const std::uint64_t value : values) histogram.record(value);
  std::sort(values.begin(), values.end());
  for (const double quantile : kQuantiles) {
    const auto rank = std::max(1.0, std::ceil(quantile * static_cast<double>(count)));
    const std::uint64_t exact = values[static_cast<std::size_t>(rank) - 1];
    const std::uint64_t got = histogram.percentile(quantile);
    INFO("quantile " << quantile);
    CHECK(got >= exact);
    CHECK(got - exact <= exact / 128);
  }
  CHECK(histogram.max() == values.back());
  CHECK(histogram.count() == count);
}

TEST_CASE("histogram: values below 256 are exact", "[latency_histogram]") {
  LatencyHistogram histogram;
  for (std::uint64_t value = 0; value < 256; ++value) histogram.record(value);
  for (std::uint64_t value = 0; value < 256; ++value) {
    CHECK(histogram.percentile(static_cast<double>(value + 1) / 256) == value);
  }
}

TEST_CASE("histogram: the largest number there is fits", "[latency_histogram]") {
  LatencyHistogram histogram;
  histogram.record(UINT64_MAX);
  CHECK(histogram.percentile(0.5) == UINT64_MAX);
}

TEST_CASE("histogram: an empty one says 0", "[latency_histogram]") {
  const LatencyHistogram histogram;
  CHECK(histogram.percentile(0.99) == 0);
  CHECK(histogram.max() == 0);
}

TEST_CASE("histogram: two merged say what one with all values says", "[latency_histogram]") {
  const std::uint64_t this_seed = seed();
  INFO("WEFT_SEED=" << this_seed);
  LatencyHistogram all;
  LatencyHistogram halves[2];
  std::size_t i = 0;
  for (const std::uint64_t value : values_of_every_size(this_seed, 1'001)) {
    all.record(value);
    halves[i++ % 2].record(value);
  }
  halves[0].merge(halves[1]);
  for (const double quantile : kQuantiles) {
    CHECK(halves[0].percentile(quantile) == all.percentile(quantile));
  }
  CHECK(halves[0].count() == all.count());
  CHECK(halves[0].max() == all.max());
}

}  // namespace
}  // namespace weft::bench
