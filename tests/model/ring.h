// A ring and its kernel in miniature: a driver for model workers (fibers.h).
//
//   model::Ring ring;
//   fibers.set_driver(0, ring);
//   schedule.add("kernel", [&] { while (ring.complete_one([&] { return fibers.all_ended(); })) {} });
//
// Entries leave in the order in which they were prepared, cancels included; preparing one may make the
// batch full and send it off. The kernel completes an operation by itself if its length says so, and any
// operation that is cancelled.
//
// Promises: a schedule fails when the kernel is given an operation that is over, or completes one for
// which nobody waits, or when a fiber goes on while the ring still knows its operation.
#pragma once

#include <algorithm>
#include <cerrno>
#include <deque>

#include "runtime/sched/io_driver.h"
#include "runtime/sched/wake_batch.h"
#include "tests/model/blocking.h"
#include "tests/model/explore.h"

namespace weft::model {

class Ring : public sched::IoDriver {
 public:
  // Its operation has this length if it completes only when it is cancelled.
  static constexpr unsigned kNever = 1;
  static constexpr int kSuccess = 1;

  void prepare(sched::Operation& operation) override {
    batch_.push_back({&operation, /*is_cancel=*/false});
    if (choose(2) == 1) submit();
  }

  bool withdraw(sched::Operation& operation) override {
    return std::erase_if(batch_, [&](const Entry& entry) {
             return entry.operation == &operation && !entry.is_cancel;
           }) != 0;
  }

  void cancel(sched::Operation& operation) override {
    batch_.push_back({&operation, /*is_cancel=*/true});
  }

  unsigned prepared() const override { return static_cast<unsigned>(batch_.size()); }
  bool completions_waiting() const override { return !completions_.empty(); }

  void poll(sched::WakeBatch& batch) override {
    submit();
    while (!completions_.empty()) {
      const Completion completion = completions_.front();
      completions_.pop_front();
      sched::FiberBlock& fiber = *completion.operation->fiber;
      const sched::ClaimWord::View view = fiber.claim.load();
      check(view.state() == sched::FiberState::kParked && view.in_ring(),
            "an operation completed for which nobody waits");
      completion.operation->result = completion.result;
      fiber.claim.complete();
      batch.add(fiber);
    }
  }

  void wait(std::int64_t, std::int64_t, sched::WakeBatch& batch) override { poll(batch); }
  void ring_doorbell() override {}
  void leave_thread() override {}
  std::size_t in_flight() const override { return batch_.size() + kernel_.size(); }
  std::uint64_t kernel_entries() const override { return 0; }

  // The kernel's thread: completes an operation; false when there is none and `over()`.
  template <class Over>
  bool complete_one(Over over) {
    const auto completes = [](const sched::Operation* operation) {
      return operation->length != kNever;
    };
    block_until([&] { return over() || std::any_of(kernel_.begin(), kernel_.end(), completes); });
    const auto found = std::find_if(kernel_.begin(), kernel_.end(), completes);
    if (found == kernel_.end()) return false;
    completions_.push_back({*found, kSuccess});
    kernel_.erase(found);
    return true;
  }

  // Call from: the fiber, when it goes on.
  void check_forgotten(const sched::Operation& operation) const {
    const auto names_it = [&](const auto& entry) { return entry.operation == &operation; };
    check(
        std::find(kernel_.begin(), kernel_.end(), &operation) == kernel_.end() &&
            std::none_of(batch_.begin(), batch_.end(),
                         [&](const Entry& entry) { return names_it(entry) && !entry.is_cancel; }) &&
            std::none_of(completions_.begin(), completions_.end(), names_it),
        "a fiber went on while the ring had its operation");
  }

 private:
  struct Entry {
    sched::Operation* operation;
    bool is_cancel;  // then the operation may be over: it is only a number
  };
  struct Completion {
    sched::Operation* operation;
    int result;
  };

  void submit() {
    while (!batch_.empty()) {
      const Entry entry = batch_.front();
      batch_.pop_front();
      if (!entry.is_cancel) {
        kernel_.push_back(entry.operation);
      } else if (std::erase(kernel_, entry.operation) != 0) {
        completions_.push_back({entry.operation, -ECANCELED});
      }
    }
  }

  std::deque<Entry> batch_;
  std::deque<sched::Operation*> kernel_;
  std::deque<Completion> completions_;
};

}  // namespace weft::model
