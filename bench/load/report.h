// Report: the outcome of one load, as text for people or as JSON for scripts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "bench/latency_histogram.h"
#include "bench/load/fault_log.h"
#include "bench/load/options.h"

namespace weft::bench {

struct Result {
  std::uint64_t requests = 0;  // answered in the measured time
  double seconds = 0;
  LatencyHistogram latency;
  std::uint64_t load_cpu_ns = 0;
  std::optional<std::uint64_t> server_cpu_ns;
  std::uint64_t unanswered = 0;  // drain check
};

std::string text_report(const Options& options, const Result& result, const FaultLog& faults);
std::string json_report(const Options& options, const Result& result, const FaultLog& faults);

}  // namespace weft::bench
