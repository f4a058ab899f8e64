// Everything that can happen to three waits of one fiber, one after the other: in each a wake, a timeout, a
// cancel and a completion come in each of their 24 orders, and the fiber parks before, between or behind
// them. Each step is one change of the claim word, so that these sequences are all there is. A wait ends
// once, for the first reason that came; what comes late, or for an earlier wait, changes nothing.
//
// What is judged is ClaimWord as it ships, against a few lines that say what it should do. The same program
// is built once for each planted bug, and then expects to find it.
#include <algorithm>
#include <array>
#include <cstdint>
#include <string>

#include <catch2/catch.hpp>

#include "runtime/base/plant.h"
#include "runtime/sched/claim_word.h"

namespace weft::model {
namespace {

using sched::ClaimWord;
using sched::kCancel;
using Outcome = ClaimWord::Outcome;
using Message = ClaimWord::Message;

enum class Actor { kWake, kTimeout, kCancel, kComplete };
using Order = std::array<Actor, 4>;

enum class Reason { kNone, kWake, kTimeout, kCancel, kComplete };

// How one wait goes.
struct Plan {
  Order order;
  int before_park;  // so many act before the fiber parks
  bool in_ring;     // it waits for an operation; wakes and timeouts are then those of earlier waits
  bool late_message;  // the message that a cancel sends arrives after the completion
  bool two_cancels;   // a second one comes behind the first, before anything else does
};

constexpr unsigned kRing = 3;

// A fiber's word, and what should be in it.
class Fiber {
 public:
  Fiber() { word_.begin(0); }

  // The error, or nothing.
  std::string wait(const Plan& plan) {
    reason_ = Reason::kNone;
    was_parked_ = parked_ = asked_ = cancelled_operation_ = false;
    epoch_ = word_.epoch();
    for (int i = 0; i < 4; ++i) {
      if (i == plan.before_park) park(plan);
      act(plan.order[static_cast<std::size_t>(i)], plan);
    }
    if (plan.before_park == 4) park(plan);
    finish(plan);
    return error_;
  }

 private:
  void expect(bool condition, const char* message) {
    if (!condition && error_.empty()) error_ = message;
  }

  void park(const Plan& plan) {
    const bool parked = plan.in_ring ? word_.park_in_ring(kCancel, kRing) : word_.park(kCancel);
    expect(parked == !asked_, "a park did not find what was asked before, or found what was not");
    if (parked) {
      was_parked_ = parked_ = true;
    } else {
      resume(Reason::kCancel);
    }
  }

  void act(Actor actor, const Plan& plan) {
    claim_stale();
    switch (actor) {
      case Actor::kWake:
        return claim(Reason::kWake, plan);
      case Actor::kTimeout:
        return claim(Reason::kTimeout, plan);
      case Actor::kCancel:
        request(plan);
        if (plan.two_cancels) request(plan);
        if (!plan.late_message) receive();
        return;
      case Actor::kComplete:
        if (plan.in_ring) complete();
        return;
    }
  }

  // Whoever looks for this wait: the first one gets it.
  void claim(Reason reason, const Plan& plan) {
    if (plan.in_ring) return;  // nobody knows the epoch of such a wait
    const bool claimed = word_.claim(epoch_);
    expect(claimed == parked_, "a claim won a wait that was over, or lost one that was not");
    if (claimed) resume(reason);
  }

  void claim_stale() {
    for (int i = 0; i < past_; ++i) {
      expect(!word_.claim(past_epochs_[static_cast<std::size_t>(i)]),
             "a waker of an earlier wait ended a later one");
    }
  }

  void request(const Plan& plan) {
    const ClaimWord::Requested requested = word_.request(kCancel);
    const Outcome wanted = !parked_        ? Outcome::kNoted
                           : !plan.in_ring ? Outcome::kWoken
                           : message_      ? Outcome::kNoted
                                           : Outcome::kMessage;
    expect(requested.outcome == wanted, "a request had another outcome than it should");
    asked_ = true;
    if (requested.outcome == Outcome::kWoken) resume(Reason::kCancel);
    if (requested.outcome == Outcome::kMessage) {
      expect(requested.ring == kRing, "a message goes to another ring");
      message_ = true;
    }
  }

  void receive() {
    if (!message_) return;
    message_ = false;
    const Message wanted = parked_ && asked_ ? Message::kCancel : Message::kDrop;
    expect(word_.receive(kRing).message == wanted, "a message had another outcome than it should");
    cancelled_operation_ = wanted == Message::kCancel;
  }

  void complete() {
    if (!parked_) return;
    word_.complete();
    resume(cancelled_operation_ ? Reason::kCancel : Reason::kComplete);
  }

  void resume(Reason reason) {
    expect(reason_ == Reason::kNone, "a wait ended twice");
    reason_ = reason;
    parked_ = false;
    expect(word_.load().state() == sched::FiberState::kRunnable, "a wait ended while it is parked");
  }

  // What has not ended by itself ends now; the level that asked is left.
  void finish(const Plan& plan) {
    if (parked_ && plan.in_ring) {
      complete();
    } else if (parked_) {
      claim(Reason::kWake, plan);
    }
    expect(reason_ != Reason::kNone, "a wait did not end");
    word_.withdraw(kCancel);
    asked_ = false;
    if (was_parked_) past_epochs_[static_cast<std::size_t>(past_++)] = epoch_;
    receive();
    expect(!word_.asked(kCancel) && !word_.load().queued(), "something is left of a wait");
  }

  ClaimWord word_;
  std::uint32_t epoch_ = 0;
  std::array<std::uint32_t, 3> past_epochs_{};  // of waits that are over
  int past_ = 0;
  bool was_parked_ = false;  // in this wait
  bool parked_ = false;
  bool asked_ = false;
  bool message_ = false;
  bool cancelled_operation_ = false;
  Reason reason_ = Reason::kNone;
  std::string error_;
};

template <class Visit>
void for_each_order(Visit visit) {
  Order order = {Actor::kWake, Actor::kTimeout, Actor::kCancel, Actor::kComplete};
  do {
    visit(order);
  } while (std::next_permutation(order.begin(), order.end()));
}

// All plans of a wait; the last wait of three is always there before the others act.
template <class Visit>
void for_each_plan(bool is_last, Visit visit) {
  for_each_order([&](const Order& order) {
    for (int before = 0; before <= (is_last ? 0 : 4); ++before) {
      for (int choices = 0; choices < (is_last ? 2 : 8); ++choices) {
        const bool in_ring = (choices & 1) != 0;
        if (!in_ring && (choices & 2) != 0) continue;  // no message is ever sent
        visit(Plan{order, before, in_ring, (choices & 2) != 0, (choices & 4) != 0});
      }
    }
  });
}

// Returns the first error, or nothing.
std::string wait_three_times() {
  std::string error;
  for_each_plan(false, [&](const Plan& first) {
    for_each_plan(false, [&](const Plan& second) {
      // The third wait in one order each: which one depends on the second, so that all of them come.
      const Plan third{second.order, 0, !second.in_ring, false, false};
      if (!error.empty()) return;
      Fiber fiber;
      for (const Plan& plan : {first, second, third}) {
        if (error.empty()) error = fiber.wait(plan);
      }
    });
  });
  for_each_plan(true, [&](const Plan& first) {
    for_each_plan(true, [&](const Plan& second) {
      for_each_plan(true, [&](const Plan& third) {
        if (!error.empty()) return;
        Fiber fiber;
        for (const Plan& plan : {first, second, third}) {
          if (error.empty()) error = fiber.wait(plan);
        }
      });
    });
  });
  return error;
}

#ifndef WEFT_PLANT

TEST_CASE("claim_word: each of three waits ends once, for the first reason", "[claim][B6]") {
  REQUIRE(wait_three_times() == "");
}

#else

TEST_CASE("claim_word: the planted bug is found", "[claim][B6]") {
  INFO("plant " << base::kPlant);
  REQUIRE(wait_three_times() != "");
}

#endif

}  // namespace
}  // namespace weft::model
