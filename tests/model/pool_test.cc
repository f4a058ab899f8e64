// The pools of control blocks and of stacks: block_pool.cc, stack_cache.cc, stack_pool.cc and stack_arena.cc
// as they ship, over memory that is never mapped. What is given back by another worker than the one that
// took it is not lost; nothing is handed out twice; and nobody's pages go while he has the stack.
//
// block_pool.cc is part of this file, so that each schedule can begin with an empty registry.
#include <array>
#include <cstddef>
#include <exception>
#include <memory>
#include <vector>

#include <catch2/catch.hpp>

#include "arch/x86_64/uninstrumented.h"
#include "runtime/base/plant.h"
#include "runtime/os/memory.h"
#include "runtime/sched/block_pool.cc"  // NOLINT(bugprone-suspicious-include)
#include "runtime/sched/stack_cache.h"
#include "runtime/sched/stack_pool.h"
#include "tests/model/blocking.h"
#include "tests/model/explore.h"

namespace weft::model {
namespace {

using sched::BlockCache;
using sched::FiberBlock;
using sched::Stack;
using sched::StackCache;
using sched::StackPool;

// All memory there is; a schedule starts at its beginning.
class Memory {
 public:
  static constexpr std::size_t kBytes = std::size_t{24} << 20;

  void reset() { used_ = 0; }
  std::byte* take(std::size_t bytes) {
    constexpr std::size_t kAlignment = 1 << 18;
    std::byte* taken = bytes_ + used_;
    used_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    check(used_ <= kBytes, "the model's memory is used up");
    return taken;
  }

 private:
  alignas(1 << 18) inline static std::byte bytes_[kBytes];
  std::size_t used_ = 0;
};
Memory memory;

// Something passes from one thread to the next: who it was taken by, and who gives it back.
template <class T>
class HandOver {
 public:
  void put(T* one) {
    things_.push_back(one);
    ready_.post();
  }
  T* take() {
    ready_.wait();
    T* one = things_.back();
    things_.pop_back();
    return one;
  }

 private:
  std::vector<T*> things_;
  Semaphore ready_;
};

// ---- Blocks

// A worker takes blocks from its cache; another one, with a cache of its own, and a thread without one give
// them back to where they came from, while it takes more.
class Blocks {
 public:
  explicit Blocks(Schedule& schedule) {
    memory.reset();
    ::new (&sched::registry()) sched::Registry;
    home_.reset(BlockCache::lease());
    other_.reset(BlockCache::lease());
    schedule.name(*home_, "home cache");
    schedule.add("owner", [this] { take_and_pass(); });
    schedule.add("worker", [this] { give_back(to_worker_, other_.get()); });
    schedule.add("thread", [this] { give_back(to_thread_, nullptr); });
  }

  // All blocks that were ever made are in the cache, each of them once.
  void check_all_back() {
    const int made = made_;
    for (int i = 0; i < made; ++i) take();
    check(made_ == made && made == static_cast<int>(owned_.size()), "a block was lost");
  }

 private:
  static constexpr int kRounds = 3;

  FiberBlock* take() {
    FiberBlock* block = home_->allocate(0, 0);
    for (const FiberBlock* one : owned_) check(one != block, "a block was handed out twice");
    check(block->id > last_id_, "an id came again");
    last_id_ = block->id;
    owned_.push_back(block);
    bool known = false;
    for (const FiberBlock* one : all_) known = known || one == block;
    if (!known) {
      all_.push_back(block);
      ++made_;
    }
    return block;
  }

  void give(FiberBlock* block, BlockCache* mine) {
    std::erase(owned_, block);
    BlockCache::release(block, mine);
  }

  void take_and_pass() {
    for (int i = 0; i < kRounds; ++i) {
      to_worker_.put(take());
      to_thread_.put(take());
      give(take(), home_.get());
    }
  }

  void give_back(HandOver<FiberBlock>& from, BlockCache* mine) {
    for (int i = 0; i < kRounds; ++i) give(from.take(), mine);
  }

  std::unique_ptr<BlockCache> home_;
  std::unique_ptr<BlockCache> other_;
  HandOver<FiberBlock> to_worker_;
  HandOver<FiberBlock> to_thread_;
  std::vector<FiberBlock*> all_;
  std::vector<FiberBlock*> owned_;
  std::uint64_t last_id_ = 0;
  int made_ = 0;
};

void blocks(Schedule& schedule) {
  Blocks pool(schedule);
  schedule.run();
  pool.check_all_back();
}

// ---- Stacks

// One worker starts fibers, which end on another one. That one then falls asleep, again and again, and trims
// the pool, a minute later each time, while the first one starts more.
class Stacks {
 public:
  explicit Stacks(Schedule& schedule) {
    current_ = this;
    memory.reset();
    pool_ = std::make_unique<StackPool>(StackPool::Options{.default_bytes = sched::kStackBytesMin});
    schedule.name(*pool_, "pool");
    schedule.add("starter", [this] { start(); });
    schedule.add("ender", [this] { end(); });
  }

  ~Stacks() {
    // The pool of a schedule that failed would say that stacks are missing.
    if (std::uncaught_exceptions() != 0) static_cast<void>(pool_.release());
  }

  void check_all_back() const {
    check(owned_.empty() && pool_->usage().out == 0, "a stack was lost");
  }

  // The kernel takes the pages of [at, at + bytes).
  static void forget(const std::byte* at, std::size_t bytes) {
    for (const Stack* stack : current_->owned_) {
      const auto* record = reinterpret_cast<const std::byte*>(stack);
      check(record < at || record >= at + bytes, "the pages of a stack went while somebody had it");
    }
  }

 private:
  static constexpr int kStacks = 12;  // of which a sleeping worker keeps four
  static constexpr int kRounds = 2;

  void start() {
    StackCache cache(*pool_);
    for (int i = 0; i < kRounds * kStacks; ++i) {
      if (i == kStacks) first_round_over_.wait();
      Stack* stack = cache.acquire();
      check(stack != nullptr && stack->arena != nullptr,
            "the record of a stack went with its pages");
      for (const Stack* one : owned_) check(one != stack, "a stack was handed out twice");
      owned_.push_back(stack);
      ended_.put(stack);
    }
  }

  void end() {
    StackCache cache(*pool_);
    std::uint64_t now_ns = 1;
    for (int i = 0; i < kRounds; ++i) {
      for (int n = 0; n < kStacks; ++n) {
        Stack* stack = ended_.take();
        std::erase(owned_, stack);
        cache.release(stack);
      }
      first_round_over_.post();
      for (int n = 0; n < 4; ++n) {
        cache.trim(now_ns);
        now_ns += StackPool::kWindowNs;
      }
      cache.woke();
    }
  }

  inline static Stacks* current_ = nullptr;
  std::unique_ptr<StackPool> pool_;
  HandOver<Stack> ended_;
  Semaphore first_round_over_;
  std::vector<Stack*> owned_;
};

void stacks(Schedule& schedule) {
  Stacks pool(schedule);
  schedule.run();
  pool.check_all_back();
}

constexpr std::array kCases = {
    Case{"stacks", stacks, 100'000},
    Case{"blocks", blocks, 100'000},
};

#ifndef WEFT_PLANT

TEST_CASE("pool: nothing is lost, and nothing is handed out twice", "[remote][trim][B9]") {
  REQUIRE(explore_cases("pool", kCases).message == "");
}

#else

TEST_CASE("pool: the planted bug is found", "[remote][trim][B9]") {
  INFO("plant " << base::kPlant);
  const Result result = explore_cases("pool", kCases, 4);
  REQUIRE(result.message != "");
  REQUIRE(result.schedules < 100'000);
}

#endif

// As the kernel does it: poison does not stop it.
WEFT_UNINSTRUMENTED void clear(std::byte* at, std::size_t bytes) {
  for (volatile auto* byte = reinterpret_cast<unsigned char*>(at); bytes > 0; --bytes) *byte++ = 0;
}

// Others may run before the kernel comes to it.
void forget(void* at, std::size_t bytes) {
  static base::Atomic<int> system_call{0};
  system_call.load(std::memory_order_relaxed);
  Stacks::forget(static_cast<std::byte*>(at), bytes);
  clear(static_cast<std::byte*>(at) + bytes - os::kPageBytes / 2,
        os::kPageBytes / 2);  // the record
}

}  // namespace
}  // namespace weft::model

// ---- What the pools call, and the model replaces.

namespace weft::os {

long system::mmap(void*, std::size_t bytes, int, int, int, off_t) {
  return reinterpret_cast<long>(model::memory.take(bytes));
}

int map_region(std::size_t bytes, const char*, Region& region) {
  region = {model::memory.take(bytes), bytes};
  return 0;
}
int unmap_region(const Region&) { return 0; }
int advise_guard(const Region&, void*, std::size_t) { return 0; }
int protect_guard(void*, std::size_t) { return 0; }
int release_pages(void* at, std::size_t bytes) {
  model::forget(at, bytes);
  return 0;
}
std::size_t map_count_limit() { return 65530; }

}  // namespace weft::os
