// The inbox: order, who is told that it was empty, and three senders with one receiver.
#include "runtime/base/inbox.h"

#include <atomic>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>

#include "tests/support/random.h"

namespace {

using weft::test::Random;

struct Message {
  Message* message_link = nullptr;
  unsigned sender = 0;
  unsigned number = 0;
};

using Inbox = weft::base::Inbox<Message, &Message::message_link>;

}  // namespace

TEST_CASE("inbox: messages come out in the order in which they were sent", "[inbox][B3]") {
  Random random(weft::test::seed());
  std::vector<Message> messages(100);
  Inbox inbox;
  for (int round = 0; round < 5'000; ++round) {
    const auto count = random.below(messages.size());
    if (!inbox.empty() || !inbox.empty_seq_cst()) FAIL("not empty in round " << round);
    for (std::uint64_t i = 0; i < count; ++i) {
      if (inbox.push(&messages[i]) != (i == 0)) FAIL("was it empty? round " << round);
    }
    if (inbox.empty() != (count == 0) || inbox.empty_seq_cst() != (count == 0)) FAIL("empty");
    auto received = inbox.take_all();
    for (std::uint64_t i = 0; i < count; ++i) {
      if (received.pop() != &messages[i]) FAIL("the order is wrong in round " << round);
    }
    if (!received.empty()) FAIL("too much in round " << round);
  }
}

TEST_CASE("inbox: with three senders each message arrives once, and one rings for each batch",
          "[inbox][B3]") {
  constexpr unsigned kSenders = 3;
  constexpr unsigned kEach = 50'000;
  std::vector<Message> messages(kSenders * kEach);
  Inbox inbox;
  std::atomic<unsigned> found_empty{0};

  std::vector<std::thread> senders;
  for (unsigned sender = 0; sender < kSenders; ++sender) {
    senders.emplace_back([&, sender] {
      for (unsigned number = 1; number <= kEach; ++number) {
        Message& message = messages[sender * kEach + number - 1];
        message.sender = sender;
        message.number = number;
        // relaxed: a tally, read after the threads were joined.
        if (inbox.push(&message)) found_empty.fetch_add(1, std::memory_order_relaxed);
      }
    });
  }
  unsigned received = 0;
  unsigned batches = 0;
  unsigned wrong = 0;
  unsigned last[kSenders] = {};
  while (received < kSenders * kEach) {
    auto batch = inbox.take_all();
    if (batch.empty()) {
      std::this_thread::yield();
      continue;
    }
    ++batches;
    while (Message* message = batch.pop()) {
      ++received;
      if (message->number != ++last[message->sender]) ++wrong;
    }
  }
  for (std::thread& sender : senders) sender.join();
  CHECK(wrong == 0);
  CHECK(found_empty.load(std::memory_order_relaxed) == batches);
  CHECK(inbox.empty_seq_cst());
}
