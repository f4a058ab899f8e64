// What the switch asks of a scheduler, in its smallest form. See small_fibers.h.
#include "tests/arch/x86_64/small_fibers.h"

// The ring: the next fiber after the last one that has not ended.
extern "C" void* weft_next(void* pointer) {
  auto& worker = *static_cast<weft::test::SmallWorker*>(pointer);
  for (std::size_t looks = 0; looks < worker.fibers.size(); ++looks) {
    worker.turn = (worker.turn + 1) % worker.fibers.size();
    if (!worker.fibers[worker.turn]->ended) return worker.fibers[worker.turn].get();
  }
  return nullptr;
}

extern "C" void small_fiber_main(void* pointer, void*) {
  auto& fiber = *static_cast<weft::test::SmallFiber*>(pointer);
  fiber.body(fiber);
  fiber.ended = true;
  fiber.yield();
  __builtin_unreachable();
}
