// An arena is one word of the table: its page-aligned address, and in the twelve bits below that
// what its geometry follows from. One word cannot be read half old and half new, so a handler needs no
// lock; an arena that goes away while a handler looks is not the one that the handler's thread is on.
//
//   bits 12..63  address of the first slot
//   bits 5..9    size class
//   bits 0..4    log2 of the number of slots
#include "runtime/sched/stack_registry.h"

#include "runtime/base/atomic.h"

namespace weft::sched {
namespace {

constexpr std::uint64_t kAddressMask = ~std::uint64_t{0xfff};
static_assert(kStackClasses <= 32);

// [arenas] Any thread claims a free word (0) by CAS and frees its own by a store.
base::Atomic<std::uint64_t> arenas[kArenasMax];

}  // namespace

int register_arena(const std::byte* base, unsigned size_class, unsigned slots_log2) {
  const std::uint64_t word =
      reinterpret_cast<std::uintptr_t>(base) | (size_class << 5) | slots_log2;
  for (std::size_t i = 0; i < kArenasMax; ++i) {
    std::uint64_t free = 0;
    // [arenas] release: the word describes a mapping that exists; pairs with find_stack().
    // relaxed on failure: the word is another arena's, and nothing is read through it.
    if (arenas[i].compare_exchange_strong(free, word, std::memory_order_release,
                                          std::memory_order_relaxed)) {
      return static_cast<int>(i);
    }
  }
  return -1;
}

void unregister_arena(int number) {
  // relaxed: whoever looks it up at the same time is told of a mapping that is about to go, which no
  // order could prevent; see the top of this file.
  arenas[number].store(0, std::memory_order_relaxed);
}

std::optional<StackPlace> find_stack(const void* address) {
  const auto wanted = reinterpret_cast<std::uintptr_t>(address);
  for (const auto& arena : arenas) {
    const std::uint64_t word = arena.load(std::memory_order_acquire);  // [arenas] register_arena()
    if (word == 0) continue;
    const unsigned size_class = (word >> 5) & 31;
    const std::uintptr_t base = word & kAddressMask;
    const std::size_t bytes = stack_class_bytes(size_class);
    if (wanted < base || wanted - base >= bytes << (word & 31)) continue;
    const auto slot = static_cast<std::uint32_t>((wanted - base) / bytes);
    const std::uintptr_t guard = base + slot * bytes;
    const std::uintptr_t low = guard + guard_bytes(bytes);
    return StackPlace{.guard = guard,
                      .low = low,
                      .end = guard + bytes,
                      .record = stack_record(reinterpret_cast<std::byte*>(guard + bytes), slot),
                      .slot = slot,
                      .in_guard = wanted < low};
  }
  return std::nullopt;
}

}  // namespace weft::sched
