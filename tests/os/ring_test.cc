// Ring: entries and positions, sleeping and its deadline, what overflows, and what cannot be opened.
#include "runtime/os/ring.h"

#include <cerrno>

#include <unistd.h>

#include <catch2/catch.hpp>

#include "runtime/os/clock.h"
#include "runtime/os/system.h"

namespace weft::os {
namespace {

using system::Call;

void add_nop(Ring& ring, std::uint64_t tag) {
  io_uring_sqe* sqe = ring.next_sqe();
  REQUIRE(sqe != nullptr);
  io_uring_prep_nop(sqe);
  sqe->user_data = tag;
}

TEST_CASE("ring: entries complete in the order in which they were prepared", "[ring]") {
  Ring ring;
  REQUIRE(ring.open({.submission_entries = 8, .completion_entries = 64}) == 0);
  for (std::uint64_t i = 0; i < 20; ++i)
    add_nop(ring, i);  // 8 fit: a full queue is handed over first
  CHECK(ring.prepared() <= 8);
  CHECK(ring.enter(Ring::Wait::kNo, Ring::kNever, 0) == 0);
  CHECK(ring.prepared() == 0);
  for (std::uint64_t i = 0; i < 20; ++i) {
    const io_uring_cqe* cqe = ring.peek();
    REQUIRE(cqe != nullptr);
    CHECK(cqe->user_data == i);
    ring.seen();
  }
  CHECK(ring.peek() == nullptr);
}

TEST_CASE("ring: an entry is at its position until it is submitted", "[ring]") {
  Ring ring;
  REQUIRE(ring.open({.submission_entries = 4, .completion_entries = 64}) == 0);
  for (int round = 0; round < 10; ++round) {
    const std::uint32_t position = ring.position();
    CHECK(ring.unsubmitted(position) == nullptr);
    add_nop(ring, 7);
    add_nop(ring, 8);
    REQUIRE(ring.unsubmitted(position) != nullptr);
    CHECK(ring.unsubmitted(position)->user_data == 7);
    CHECK(ring.unsubmitted(position + 1)->user_data == 8);
    CHECK(ring.unsubmitted(position + 2) == nullptr);
    CHECK(ring.unsubmitted(position - 1) == nullptr);
    CHECK(ring.enter(Ring::Wait::kNo, Ring::kNever, 0) == 0);
    CHECK(ring.unsubmitted(position) == nullptr);
    while (ring.peek() != nullptr) ring.seen();
  }
}

TEST_CASE("ring: a sleep ends at its deadline, never early", "[ring]") {
  Ring ring;
  REQUIRE(ring.open({}) == 0);
  const std::int64_t now = now_ns();
  CHECK(ring.enter(Ring::Wait::kYes, now + 2'000'000, now) == -ETIME);
  CHECK(now_ns() >= now + 2'000'000);
  CHECK(ring.enter(Ring::Wait::kYes, now, now_ns()) == -ETIME);  // long past
}

TEST_CASE("ring: an overflow is visible and brought by the next enters", "[ring][F5]") {
  Ring ring;
  REQUIRE(ring.open({.submission_entries = 4, .completion_entries = 8}) == 0);
  CHECK_FALSE(ring.work_waiting());
  constexpr std::uint64_t kMany = 80;
  for (std::uint64_t i = 0; i < kMany; ++i) add_nop(ring, i);
  CHECK(ring.enter(Ring::Wait::kNo, Ring::kNever, 0) == 0);
  CHECK(ring.work_waiting());
  std::uint64_t next = 0;
  for (int enters = 0; next < kMany && enters < 100; ++enters) {
    while (const io_uring_cqe* cqe = ring.peek()) {
      CHECK(cqe->user_data == next++);
      ring.seen();
    }
    ring.enter(Ring::Wait::kNo, Ring::kNever, 0);
  }
  CHECK(next == kMany);
  CHECK_FALSE(ring.work_waiting());
}

TEST_CASE("ring: a kernel that takes nothing leaves no room, and says so", "[ring]") {
  Ring ring;
  REQUIRE(ring.open({.submission_entries = 2, .completion_entries = 8}) == 0);
  add_nop(ring, 1);
  add_nop(ring, 2);
  system::arm_fault(Call::kIoUringEnter, 0, EBUSY, 2);
  CHECK(ring.next_sqe() == nullptr);
  CHECK(ring.enter(Ring::Wait::kNo, Ring::kNever, 0) == -EBUSY);
  CHECK(ring.prepared() == 2);  // kept
  system::disarm_faults();
  CHECK(ring.next_sqe() != nullptr);
}

TEST_CASE("ring: the step that failed is named, and nothing stays open", "[ring][K1]") {
  struct Step {
    Call call;
    const char* name;
  };
  const auto step = GENERATE(Step{Call::kIoUringSetup, "io_uring_setup"},
                             Step{Call::kIoUringRegister, "io_uring_register"},
                             Step{Call::kIoUringEnter, "io_uring_enter"});
  system::arm_fault(step.call, 0, EPERM);
  const int before = dup(0);
  close(before);
  {
    Ring ring;
    CHECK(ring.open({}) == -EPERM);
    CHECK(std::string(ring.failed_step()) == step.name);
  }
  system::disarm_faults();
  const int after = dup(0);
  close(after);
  CHECK(before == after);  // the lowest free number is what it was
}

TEST_CASE("ring: one can be closed by another thread after detach()", "[ring]") {
  Ring ring;
  REQUIRE(ring.open({}) == 0);
  ring.detach();
  ring.close();
  ring.close();  // twice is once
}

}  // namespace
}  // namespace weft::os
