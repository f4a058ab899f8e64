// The least that runs on the switch: one thread, fibers in a ring, each with a function and a stack.
//
//   SmallFibers fibers;
//   fibers.add([](SmallFiber& self) { self.yield(); });
//   fibers.run();                                    // until all have returned
//
// So the switch is tested by itself, without a scheduler: whatever fails here fails in the assembly, or
// in what a compiler makes around it.
//
// Requires: fibers are added before run(). One of these at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include <sys/mman.h>

#include "arch/x86_64/switch.h"

extern "C" {
// See checked_switch.S.
void* checked_call(void* function, void* first, void* second, const std::uint64_t* patterns,
                   std::uint64_t* seen);
void* noting_entry(void* fiber, void* worker);
}

namespace weft::test {

struct SmallWorker;

struct SmallFiber {
  void* rsp = nullptr;        // belongs to the switch
  void* entry_rsp = nullptr;  // belongs to noting_entry
  void (*body)(SmallFiber&) = nullptr;
  void* argument = nullptr;
  SmallWorker* worker = nullptr;
  std::byte* stack = nullptr;
  bool started = false;
  bool ended = false;

  void yield() { weft_leave(this, worker); }
};
static_assert(offsetof(SmallFiber, entry_rsp) == 8);

struct SmallWorker {
  void* rsp = nullptr;  // belongs to the switch
  std::vector<std::unique_ptr<SmallFiber>> fibers;
  std::size_t turn = 0;
};

class SmallFibers {
 public:
  static constexpr std::size_t kStackBytes = 256 << 10;

  SmallFibers() = default;
  SmallFibers(const SmallFibers&) = delete;
  SmallFibers& operator=(const SmallFibers&) = delete;
  ~SmallFibers() {
    for (auto& fiber : worker_.fibers) munmap(fiber->stack, kStackBytes);
  }

  SmallFiber& add(void (*body)(SmallFiber&), void* argument = nullptr) {
    void* stack =
        mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    SmallFiber& fiber = *worker_.fibers.emplace_back(std::make_unique<SmallFiber>());
    fiber.body = body;
    fiber.argument = argument;
    fiber.worker = &worker_;
    fiber.stack = static_cast<std::byte*>(stack);
    fiber.rsp = arch::seed_stack(fiber.stack + kStackBytes, &noting_entry, &fiber);
    return fiber;
  }

  void run() { weft_loop(&worker_); }
  // The same with every callee-saved register of the caller filled.
  void run_checked(const std::uint64_t* patterns, std::uint64_t* seen) {
    checked_call(reinterpret_cast<void*>(&weft_loop), &worker_, nullptr, patterns, seen);
  }

 private:
  SmallWorker worker_;
};

}  // namespace weft::test
