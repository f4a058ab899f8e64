// bench.h: what the benchmarks share: pinning, clocks, medians, and the lines that tools/bench.py reads.
//
//   int main(int argc, char** argv) {
//     const bench::Run run(argc, argv);
//     bench::pin_to_one_cpu();
//     if (run.wants("yield_2")) {
//       const long yields = run.count(4'000'000, 2'000);
//       bench::report("yield_2", {{"ns", run.median([&] { return yield_ns(2, yields); })}});
//     }
//   }
//
// A program is run without arguments to measure; with --smoke to do little work with the same checks;
// with --once N [row] to do N operations a single time, for tools that count instructions.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <initializer_list>
#include <string_view>
#include <utility>
#include <vector>

#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

namespace weft::bench {

class Run {
 public:
  Run(int argc, char** argv) {
    if (argc > 1) smoke_ = std::string_view(argv[1]) == "--smoke";
    if (argc > 2 && std::string_view(argv[1]) == "--once")
      once_ = std::strtol(argv[2], nullptr, 10);
    if (argc > 3) row_ = argv[3];
  }

  bool smoke() const { return smoke_; }
  bool wants(std::string_view row) const { return row_.empty() || row_ == row; }
  long count(long full, long small) const { return once_ != 0 ? once_ : smoke_ ? small : full; }

  // The median of five; one more before them warms up and does not count.
  template <class Measure>
  double median(Measure measure) const {
    if (smoke_ || once_ != 0) return measure();
    measure();
    std::vector<double> figures;
    for (int i = 0; i < 5; ++i) figures.push_back(measure());
    std::sort(figures.begin(), figures.end());
    return figures[figures.size() / 2];
  }

 private:
  bool smoke_ = false;
  long once_ = 0;
  std::string_view row_;
};

// Ends the program when a result is not what the work must give.
inline void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "wrong result: %s\n", what);
  std::_Exit(1);
}

inline void report(const char* name,
                   std::initializer_list<std::pair<const char*, double>> figures) {
  std::printf("%s", name);
  for (const auto& [key, figure] : figures) std::printf(" %s=%.6g", key, figure);
  std::printf("\n");
  std::fflush(stdout);
}

// The calling thread and the threads that it starts from now on.
inline void pin_to_one_cpu() {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(static_cast<unsigned>(sched_getcpu()), &one);
  require(sched_setaffinity(0, sizeof one, &one) == 0, "pinning to one CPU");
}

inline std::int64_t clock_ns(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}
inline std::int64_t cpu_ns() { return clock_ns(CLOCK_PROCESS_CPUTIME_ID); }
inline std::int64_t wall_ns() { return clock_ns(CLOCK_MONOTONIC); }

// Calls measure() in a child of its own, where no page and no fiber has been touched before.
// Requires: no runtime has been started in this process. Figures is trivially copyable.
template <class Figures, class Measure>
Figures in_fresh_process(Measure measure) {
  int ends[2];
  require(pipe(ends) == 0, "a pipe to the child");
  const pid_t child = fork();
  if (child == 0) {
    const Figures figures = measure();
    _exit(write(ends[1], &figures, sizeof figures) == sizeof figures ? 0 : 1);
  }
  close(ends[1]);
  Figures figures{};
  const bool told = read(ends[0], &figures, sizeof figures) == sizeof figures;
  close(ends[0]);
  int status = 1;
  require(waitpid(child, &status, 0) == child && status == 0 && told, "the measuring child");
  return figures;
}

}  // namespace weft::bench
