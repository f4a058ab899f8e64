// Times are printed in microseconds. The JSON has one key a figure and no nesting, so
// that a script needs no more than a dictionary.
#include "bench/load/report.h"

#include <cinttypes>
#include <cstdarg>
#include <cstdio>

namespace weft::bench {

namespace {

[[gnu::format(printf, 2, 3)]] void append(std::string& out, const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  out += text;
}

double microseconds(std::uint64_t nanoseconds) { return static_cast<double>(nanoseconds) / 1e3; }

double per_request_us(std::uint64_t nanoseconds, const Result& result) {
  return result.requests == 0 ? 0
                              : microseconds(nanoseconds) / static_cast<double>(result.requests);
}

double rate(const Result& result) {
  return result.seconds > 0 ? static_cast<double>(result.requests) / result.seconds : 0;
}

// The share of one CPU, in percent.
double percent_of_cpu(std::uint64_t nanoseconds, const Result& result) {
  return result.seconds > 0 ? static_cast<double>(nanoseconds) / 1e7 / result.seconds : 0;
}

}  // namespace

std::string text_report(const Options& options, const Result& result, const FaultLog& faults) {
  std::string out;
  append(out, "load        %u connections (and %u idle), %u B, %u in flight, seed %" PRIu64 "\n",
         options.connections, options.idle, options.size_bytes, options.pipeline, options.seed);
  append(out, "requests    %" PRIu64 " in %.2f s: %.0f/s\n", result.requests, result.seconds,
         rate(result));
  const LatencyHistogram& latency = result.latency;
  append(out, "latency us  p50 %.1f  p99 %.1f  p99.9 %.1f  max %.1f\n",
         microseconds(latency.percentile(0.5)), microseconds(latency.percentile(0.99)),
         microseconds(latency.percentile(0.999)), microseconds(latency.max()));
  if (result.server_cpu_ns) {
    append(out, "server CPU  %.3f us per request, %.0f %% of a CPU\n",
           per_request_us(*result.server_cpu_ns, result),
           percent_of_cpu(*result.server_cpu_ns, result));
  }
  append(out, "load CPU    %.3f us per request, %.0f %% of a CPU\n",
         per_request_us(result.load_cpu_ns, result), percent_of_cpu(result.load_cpu_ns, result));
  if (options.drain_check) {
    append(out, "drain       %" PRIu64 " replies cut, %" PRIu64 " requests unanswered at the end\n",
           faults.count_of(Fault::kCutReply), result.unanswered);
  }
  append(out, "errors      %" PRIu64 "\n", faults.total());
  for (std::size_t i = 0; i < kFaultNames.size(); ++i) {
    const std::uint64_t count = faults.count_of(static_cast<Fault>(i));
    if (count != 0) append(out, "  %s %" PRIu64 "\n", std::string(kFaultNames[i]).c_str(), count);
  }
  return out;
}

std::string json_report(const Options& options, const Result& result, const FaultLog& faults) {
  std::string out;
  append(
      out,
      "{\"connections\": %u, \"idle\": %u, \"size_bytes\": %u, \"pipeline\": %u, \"threads\": %u, "
      "\"seed\": %" PRIu64,
      options.connections, options.idle, options.size_bytes, options.pipeline, options.threads,
      options.seed);
  append(out, ", \"requests\": %" PRIu64 ", \"seconds\": %.6f, \"requests_per_second\": %.1f",
         result.requests, result.seconds, rate(result));
  const LatencyHistogram& latency = result.latency;
  append(out, ", \"p50_us\": %.2f, \"p99_us\": %.2f, \"p999_us\": %.2f, \"max_us\": %.2f",
         microseconds(latency.percentile(0.5)), microseconds(latency.percentile(0.99)),
         microseconds(latency.percentile(0.999)), microseconds(latency.max()));
  append(out, ", \"load_cpu_us_per_request\": %.4f", per_request_us(result.load_cpu_ns, result));
  if (result.server_cpu_ns) {
    append(out, ", \"server_cpu_us_per_request\": %.4f, \"server_cpu_percent\": %.1f",
           per_request_us(*result.server_cpu_ns, result),
           percent_of_cpu(*result.server_cpu_ns, result));
  }
  for (std::size_t i = 0; i < kFaultNames.size(); ++i) {
    append(out, ", \"%s\": %" PRIu64, std::string(kFaultNames[i]).c_str(),
           faults.count_of(static_cast<Fault>(i)));
  }
  append(out, ", \"unanswered\": %" PRIu64 ", \"errors\": %" PRIu64 "}\n", result.unanswered,
         faults.total());
  return out;
}

}  // namespace weft::bench
