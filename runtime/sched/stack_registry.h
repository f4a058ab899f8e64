// The table of all stack arenas of the process: from an address to the stack that it lies in.
//
//   if (const auto place = find_stack(info->si_addr); place && place->in_guard) ...   // in a handler
//
// Promises: find_stack() is async-signal-safe; it reads one word per arena and no stack memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "runtime/sched/stack.h"

namespace weft::sched {

inline constexpr std::size_t kArenasMax = 4096;

struct StackPlace {
  std::uintptr_t guard;  // the slot's lowest address, where its guard begins
  std::uintptr_t low;    // end of the guard, first usable byte
  std::uintptr_t end;    // end of the slot
  Stack* record;         // only valid while somebody runs on this stack
  std::uint32_t slot;
  bool in_guard;  // the address lies below `low`
};

// Enters an arena of 2^slots_log2 slots at `base`; returns its number, or -1 when the table is full.
// Call from: any thread. Never parks.
int register_arena(const std::byte* base, unsigned size_class, unsigned slots_log2);
// Call before the arena is unmapped: another mapping may take its place at once.
void unregister_arena(int number);

// Call from: any thread, also in a signal handler. Never parks.
std::optional<StackPlace> find_stack(const void* address);

}  // namespace weft::sched
