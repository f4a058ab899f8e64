// What a worker with half a libc identity breaks first: std::mutex, malloc and the count of a shared_ptr, used by
// fibers on several workers at once. On bare clones all three fail within a second. [I3]
//
//   libc_stress              some million operations; a hundred million with WEFT_SOAK
//
// A program without a test framework, so that it links statically as well. Exits 0 when every count is exact.

#include <weft/fiber.h>
#include <weft/runtime.h>
#include <weft/scope.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>

#include "tests/support/random.h"
#include "tests/support/sanitizer.h"
#include "tests/support/watchdog.h"

using namespace weft;

namespace {

constexpr int kFibers = 8;
constexpr std::size_t kSlots = 64;

// relaxed, here and below, unless said: counters that order nothing.
std::atomic<std::uint64_t> operations{0};
std::atomic<std::uint64_t> wrong{0};

// A number that only the mutex protects.
struct Guarded {
  std::mutex mutex;
  std::uint64_t count = 0;
};

// Blocks that one fiber allocates and another, on whatever worker, frees.
struct Block {
  std::uint32_t bytes;
  unsigned char fill;
  unsigned char* content() { return reinterpret_cast<unsigned char*>(this + 1); }
};

Block* make_block(test::Random& random) {
  const auto bytes = static_cast<std::uint32_t>(1 + random.below(random.one_in(64) ? 70'000 : 600));
  auto* block = static_cast<Block*>(std::malloc(sizeof(Block) + bytes));
  block->bytes = bytes;
  block->fill = static_cast<unsigned char>(random.next());
  std::memset(block->content(), block->fill, bytes);
  return block;
}

void free_block(Block* block) {
  if (block == nullptr) return;
  const bool whole = block->content()[0] == block->fill &&
                     block->content()[block->bytes - 1] == block->fill &&
                     block->content()[block->bytes / 2] == block->fill;
  if (!whole) wrong.fetch_add(1, std::memory_order_relaxed);
  std::free(block);
}

struct Shared {
  Guarded guarded;
  std::array<std::atomic<Block*>, kSlots> blocks{};
  std::shared_ptr<std::uint64_t> pointer = std::make_shared<std::uint64_t>(42);
};

void hammer(Shared& shared, std::uint64_t seed, std::uint64_t rounds) {
  test::Random random(seed);
  for (std::uint64_t round = 0; round < rounds; ++round) {
    {
      const std::lock_guard hold(shared.guarded.mutex);
      ++shared.guarded.count;
    }
    const std::shared_ptr<std::uint64_t> copy = shared.pointer;
    if (*copy != 42) wrong.fetch_add(1, std::memory_order_relaxed);
    // acq_rel: who takes a block reads what its maker wrote.
    free_block(shared.blocks[random.below(kSlots)].exchange(make_block(random),
                                                            std::memory_order_acq_rel));
    operations.fetch_add(3, std::memory_order_relaxed);
    if (random.one_in(64)) this_fiber::yield();
  }
}

bool exact(int workers, std::uint64_t wanted) {
  Shared shared;
  const std::uint64_t rounds = wanted / 3 / kFibers;
  const int code = run(
      [&] {
        Scope scope;
        for (std::uint64_t i = 0; i < kFibers; ++i) {
          scope.spawn([&shared, rounds, seed = test::seed() + i] { hammer(shared, seed, rounds); });
        }
        return scope.join();
      },
      {.workers = workers, .handle_signals = false});
  for (auto& block : shared.blocks) free_block(block.exchange(nullptr, std::memory_order_acquire));
  const bool counted = shared.guarded.count == rounds * kFibers;
  const bool shared_once = shared.pointer.use_count() == 1;
  std::printf("workers=%d rounds=%llu counted=%d pointers=%d wrong=%llu\n", workers,
              static_cast<unsigned long long>(rounds * kFibers), counted, shared_once,
              static_cast<unsigned long long>(wrong.load()));
  return code == 0 && counted && shared_once && wrong == 0;
}

}  // namespace

int main() {
  constexpr bool kSanitized = test::kAddressSanitizer || test::kThreadSanitizer;
  const std::uint64_t wanted = std::getenv("WEFT_SOAK") != nullptr ? 33'000'000
                               : kSanitized                        ? 150'000
                                                                   : 1'500'000;
  test::Watchdog watchdog([] { return operations.load(); });
  bool good = true;
  for (const int workers : {2, 3, 4}) good = exact(workers, wanted) && good;
  return good ? 0 : 1;
}
