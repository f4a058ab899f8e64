// A million fibers, parked at once, each on a stack of its own with a guard below it, on a machine with its
// default limits: then all of them are woken, and one more steps onto its guard.
//
//   million [--fibers N]
//
// For stacks of 64 and of 256 KiB it prints what a parked fiber occupies, and how many mappings hold all of
// them: a mapping for each guard would end at vm.max_map_count (65,530) after some 32,000 fibers.
#include <weft/runtime.h>
#include <weft/scope.h>
#include <weft/time.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include <absl/strings/str_cat.h>

#include "bench/memory.h"
#include "examples/guards.h"

namespace {

using weft::bench::growth_each;

absl::Status park_and_wake(long count, std::size_t stack_bytes) {
  const weft::bench::Footprint before = weft::bench::footprint();
  std::atomic<long> parked{0}, guarded{0}, woken{0};
  weft::Scope scope;
  auto gate = scope.spawn([] { return weft::sleep_for(absl::InfiniteDuration()); });
  for (long i = 0; i < count; ++i) {
    scope.spawn([&] {
      guarded += examples::is_guarded() ? 1 : 0;
      ++parked;
      woken += gate.wait().ok() ? 1 : 0;
    });
  }
  while (parked < count) weft::this_fiber::yield();

  const weft::bench::Footprint now = weft::bench::footprint();
  std::printf(
      "%ld fibers parked on stacks of %zu KiB, %ld guards: %.0f bytes resident and %.0f of page "
      "tables each; %zu mappings in all\n",
      count, stack_bytes >> 10, guarded.load(),
      growth_each(now.resident_bytes, before.resident_bytes, count),
      growth_each(now.page_table_bytes, before.page_table_bytes, count), weft::bench::mappings());
  gate.cancel();
  if (absl::Status status = scope.join(); !status.ok()) return status;
  if (guarded == count && woken == count) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat(guarded.load(), " guards and ", woken.load(), " wakes instead of ", count));
}

}  // namespace

int main(int argc, char** argv) {
  const bool given = argc == 3 && std::string_view(argv[1]) == "--fibers";
  const long count = given ? std::strtol(argv[2], nullptr, 10) : 1'000'000;
  const std::size_t needed = static_cast<std::size_t>(count) * weft::bench::kParkedFiberBytes;
  if (!weft::bench::memory_suffices(needed)) return 77;

  for (const std::size_t stack_bytes : {std::size_t{64} << 10, std::size_t{256} << 10}) {
    // A child each, so that every measurement starts from nothing.
    const int status = examples::in_child(STDERR_FILENO, [count, stack_bytes] {
      return weft::run([&] { return park_and_wake(count, stack_bytes); },
                       {.stack_size = stack_bytes});
    });
    if (status != 0) return 1;
  }
  return examples::touching_a_guard_is_reported() ? 0 : 1;
}
