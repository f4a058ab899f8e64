// What the switch asks of a scheduler, in its smallest form. See small_fibers.h.
#include "tests/arch/x86_64/small_fibers.h"

#include <utility>

// The ring: the next fiber after the last one that has not ended.
WeftNext weft_next(void* pointer) {
  auto& worker = *static_cast<weft::test::SmallWorker*>(pointer);
  for (std::size_t looks = 0; looks < worker.fibers.size(); ++looks) {
    worker.turn = (worker.turn + 1) % worker.fibers.size();
    weft::test::SmallFiber& fiber = *worker.fibers[worker.turn];
    if (!fiber.ended) return {&fiber, !std::exchange(fiber.started, true)};
  }
  return {nullptr, false};
}

extern "C" void* small_fiber_main(void* pointer, void*) {
  auto& fiber = *static_cast<weft::test::SmallFiber*>(pointer);
  fiber.body(fiber);
  fiber.ended = true;
  return fiber.worker;
}
