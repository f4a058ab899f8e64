// Without memory to grow a run queue says no, and has lost nothing. A program of its own, for it
// replaces the global allocation functions that may fail, and TSan brings its own of those.
#include <cstddef>
#include <new>
#include <vector>

#include <catch2/catch.hpp>

#include "runtime/base/ready_queue.h"
#include "runtime/base/spawn_deque.h"

namespace {

int allocations_left = -1;  // -1: as many as are wanted

bool fails() {
  if (allocations_left > 0) {
    --allocations_left;
    return false;
  }
  return allocations_left == 0;
}

struct Element {};

}  // namespace

void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return fails() ? nullptr : ::operator new(bytes);
}
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept {
  return fails() ? nullptr : ::operator new[](bytes);
}

TEMPLATE_TEST_CASE("run queues: without memory a push says no and changes nothing",
                   "[spawn_deque][ready_queue]", weft::base::SpawnDeque<Element>,
                   weft::base::ReadyQueue<Element>) {
  std::vector<Element> elements(6);
  TestType queue(4);
  for (int i = 0; i < 4; ++i) REQUIRE(queue.push(&elements[i]));

  // Growth makes two allocations; whichever fails, nothing has happened.
  for (const int allocations : {0, 1}) {
    allocations_left = allocations;
    CHECK_FALSE(queue.push(&elements[4]));
    CHECK(queue.size() == 4);
  }
  Element* oldest = nullptr;
  REQUIRE(queue.steal(&oldest, 1) == 1);
  CHECK(oldest == &elements[0]);
  CHECK(queue.push(&elements[4]));  // into the room that the thief has made
  CHECK_FALSE(queue.push(&elements[5]));

  allocations_left = -1;
  CHECK(queue.push(&elements[5]));
  for (int i = 1; i < 6; ++i) {
    REQUIRE(queue.steal(&oldest, 1) == 1);
    CHECK(oldest == &elements[i]);
  }
  CHECK(queue.empty());
}
