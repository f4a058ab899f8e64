// What does a parked fiber occupy? Bytes of resident memory and of page tables per fiber, 1,000,000 fibers
// that wait for one other, every stack guarded; stacks of 64 and of 256 KiB.
#include <weft/runtime.h>
#include <weft/scope.h>
#include <weft/time.h>

#include <atomic>

#include "bench/bench.h"
#include "bench/memory.h"

namespace {

using namespace weft::bench;

struct Figures {
  double resident;
  double page_table;
};

Figures measure(std::size_t stack_size, long fibers) {
  auto runtime =
      weft::Runtime::start({.workers = 1, .stack_size = stack_size, .handle_signals = false});
  require(runtime.ok(), "starting a runtime");
  const Footprint before = footprint();
  Footprint parked;
  // relaxed: `woken` is read after all have been joined, and of `arrived` only the number matters.
  std::atomic<long> arrived{0}, woken{0};
  const absl::Status status = (*runtime)->block_on([&] {
    weft::Scope scope;
    weft::Fiber<absl::Status> gate =
        scope.spawn([] { return weft::sleep_for(absl::InfiniteDuration()); });
    for (long i = 0; i < fibers; ++i) {
      scope.spawn([&] {
        arrived.fetch_add(1, std::memory_order_relaxed);
        if (gate.wait().ok()) woken.fetch_add(1, std::memory_order_relaxed);
      });
    }
    while (arrived.load(std::memory_order_relaxed) < fibers) weft::this_fiber::yield();
    parked = footprint();
    gate.cancel();
    return scope.join();
  });
  require(status.ok() && woken.load() == fibers, "how many fibers were woken");
  return {growth_each(parked.resident_bytes, before.resident_bytes, fibers),
          growth_each(parked.page_table_bytes, before.page_table_bytes, fibers)};
}

}  // namespace

int main(int argc, char** argv) {
  const Run run(argc, argv);
  const long fibers = run.count(1'000'000, 500);
  if (!memory_suffices(static_cast<std::size_t>(fibers) * kParkedFiberBytes)) return 0;
  for (const auto& [row, stack_size] :
       {std::pair{"bytes_per_fiber_64k", std::size_t{64} << 10},
        std::pair{"bytes_per_fiber_256k", std::size_t{256} << 10}}) {
    const Figures figures =
        in_fresh_process<Figures>([&, size = stack_size] { return measure(size, fibers); });
    report(row, {{"rss", figures.resident}, {"page_table", figures.page_table}});
  }
}
