#include "tests/model/explore.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <utility>

#include "tests/model/execution.h"

namespace weft::model {
namespace {

// Sanitizers look at the models' memory, not at more schedules.
#if defined(WEFT_MODEL_ASAN) || defined(WEFT_MODEL_TSAN)
constexpr std::uint64_t kSoakFactor = 1;
#else
constexpr std::uint64_t kSoakFactor = 20;
#endif

std::optional<std::uint64_t> number_from_environment(const char* name) {
  const char* text = std::getenv(name);
  if (text == nullptr || *text == 0) return std::nullopt;
  return std::strtoull(text, nullptr, 0);
}

// What WEFT_REPLAY asks for.
struct Replay {
  std::string name;
  std::uint64_t schedule;
};

std::optional<Replay> replay_from_environment() {
  const char* text = std::getenv("WEFT_REPLAY");
  const char* colon = text == nullptr ? nullptr : std::strrchr(text, ':');
  if (colon == nullptr) return std::nullopt;
  return Replay{std::string(text, colon), std::strtoull(colon + 1, nullptr, 0)};
}

Options with_environment(Options options) {
  options.seed = number_from_environment("WEFT_SEED").value_or(options.seed);
  if (std::getenv("WEFT_SOAK") != nullptr) options.schedules *= kSoakFactor;
  if (options.strategy != Strategy::kBounded) {
    options.schedules = number_from_environment("WEFT_SCHEDULES").value_or(options.schedules);
  }
  options.depth =
      std::clamp(options.depth, options.strategy == Strategy::kBounded ? 0 : 1, kDepthMax);
  return options;
}

class Explorer {
 public:
  Explorer(const Options& options, const std::function<void(Schedule&)>& body)
      : options_(options), body_(body), execution_(options) {}

  Result explore() {
    for (std::uint64_t index = 0; index < options_.schedules; ++index) {
      result_.message = run(index, /*tracing=*/false);
      if (!result_.message.empty()) {
        show(index);
        return finish(index + 1);
      }
      if (!execution_.chooser().end_schedule(index)) {
        result_.complete = true;
        return finish(index + 1);
      }
    }
    return finish(options_.schedules);
  }

  // Runs the schedules that `target` depends on, and shows it, whether it fails or not.
  Result replay(std::uint64_t target) {
    const bool all = options_.strategy == Strategy::kBounded;
    const std::uint64_t needed = all ? target : std::min(target, Chooser::kMeasured);
    for (std::uint64_t index = 0; index < needed; ++index) {
      // One that fails before the target is a part of the way there; only a good one may be
      // measured.
      if (run(index, /*tracing=*/false).empty()) execution_.chooser().end_schedule(index);
    }
    result_.message = run(target, /*tracing=*/false);
    show(target);
    return finish(needed + 1);
  }

 private:
  // Returns what failed, or nothing.
  std::string run(std::uint64_t index, bool tracing) {
    execution_.begin(index, tracing);
    try {
      Schedule schedule;
      body_(schedule);
    } catch (Failure& failure) {
      return std::move(failure.message);
    }
    return {};
  }

  // Runs the schedule again with a trace, and prints it.
  void show(std::uint64_t index) {
    const std::uint64_t steps = execution_.steps();
    const std::string again = run(index, /*tracing=*/true);
    extra_steps_ = execution_.steps() - steps;
    if (again != result_.message) {
      result_.message += " (and not when it ran again: the body depends on more than the schedule)";
    }
    result_.schedule = index;
    result_.trace = execution_.trace().text();
    result_.replay = "WEFT_SEED=" + std::to_string(options_.seed) +
                     " WEFT_REPLAY=" + options_.name + ":" + std::to_string(index) + " " +
                     program_invocation_name;
    std::fprintf(stderr, "model: %s, schedule %llu: %s\n%s  replay: %s\n", options_.name.c_str(),
                 static_cast<unsigned long long>(index),
                 result_.message.empty() ? "nothing failed" : result_.message.c_str(),
                 result_.trace.c_str(), result_.replay.c_str());
  }

  Result finish(std::uint64_t schedules) {
    result_.schedules = schedules;
    result_.steps = execution_.steps() - extra_steps_;
    std::fprintf(stderr, "model: %s: %llu schedules%s, %.1f steps each, seed %llu%s\n",
                 options_.name.c_str(), static_cast<unsigned long long>(schedules),
                 result_.complete ? " (all there are)" : "",
                 static_cast<double>(result_.steps) /
                     static_cast<double>(std::max<std::uint64_t>(schedules, 1)),
                 static_cast<unsigned long long>(options_.seed),
                 result_.message.empty() ? "" : ", one failed");
    return std::move(result_);
  }

  const Options& options_;
  const std::function<void(Schedule&)>& body_;
  Execution execution_;
  Result result_;
  std::uint64_t extra_steps_ = 0;
};

}  // namespace

Result explore(const Options& wanted, const std::function<void(Schedule&)>& body) {
  const Options options = with_environment(wanted);
  const std::optional<Replay> replay = replay_from_environment();
  if (replay && replay->name != options.name) return Result{};
  Explorer explorer(options, body);
  return replay ? explorer.replay(replay->schedule) : explorer.explore();
}

Result explore_all(const std::string& name, std::uint64_t schedules,
                   const std::function<void(Schedule&)>& body) {
  const std::uint64_t share = schedules / 4;
  using enum Strategy;
  const Options plan[] = {
      {.name = name + "/random", .strategy = kRandom, .schedules = share},
      {.name = name + "/pct1", .strategy = kPct, .depth = 1, .schedules = share},
      {.name = name + "/pct2", .strategy = kPct, .depth = 2, .schedules = share},
      {.name = name + "/pct3", .strategy = kPct, .depth = 3, .schedules = share},
      {.name = name + "/bounded", .strategy = kBounded, .depth = 2, .schedules = schedules},
  };
  Result result;
  std::uint64_t total = 0;
  for (const Options& options : plan) {
    result = explore(options, body);
    total += result.schedules;
    if (!result.message.empty()) break;
  }
  result.schedules = total;
  return result;
}

Result explore_cases(const std::string& program, std::span<const Case> cases, std::uint64_t part) {
  Result result;
  std::uint64_t total = 0;
  for (const Case& tested : cases) {
    result = explore_all(program + "/" + tested.name, tested.schedules / part, tested.play);
    total += result.schedules;
    if (!result.message.empty()) break;
  }
  result.schedules = total;
  return result;
}

void Schedule::add(const char* name, std::function<void()> function) {
  Execution::current()->add(name, std::move(function));
}

void Schedule::run() { Execution::current()->run(); }

void Schedule::name_bytes(const void* address, std::size_t size_bytes, const char* name) {
  if (hooks.tracing) Execution::current()->trace().name_object(address, size_bytes, name);
}

void check(bool condition, const char* message) {
  if (condition) return;
  if (Execution::current() == nullptr) {
    std::fprintf(stderr, "model: outside of an exploration: %s\n", message);
    std::abort();
  }
  Execution::current()->fail(message);
}

int choose(int count) {
  const int chosen = Execution::current()->chooser().choose_number(count);
  if (hooks.tracing) {
    record(Operation::kChoose, nullptr, {static_cast<std::uint64_t>(chosen), false}, {});
  }
  return chosen;
}

int current_thread() { return Execution::current()->running_index(); }

void retire_bytes(const void* address, std::size_t size_bytes, const char* message) {
  Execution::current()->retire(address, size_bytes, message);
}

}  // namespace weft::model
