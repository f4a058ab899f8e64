// EventLog: the last scheduling events of one worker, for the report about a hang.
//
//   events.note(Event::kSteal, fiber->id, victim);
//   for (const EventRecord& event : events.last()) ...    // at any time, while others write
//
// There is one per worker, and one for the threads that are none. Reading takes no lock and stops nobody,
// because who reads is a watchdog, and what it looks at hangs. An entry that is overwritten under the
// reader's eyes may be half of one event and half of another.
//
// Only in builds with debug checks or with chaos (chaos.h); elsewhere the class is empty and note() is
// nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/base/atomic.h"
#include "runtime/os/clock.h"

#if !defined(WEFT_MODEL) && (!defined(NDEBUG) || defined(WEFT_CHAOS))
#define WEFT_EVENTS 1
#else
#define WEFT_EVENTS 0
#endif

namespace weft::sched {

inline constexpr bool kEvents = WEFT_EVENTS == 1;

enum class Event : std::uint8_t {
  kSpawn,   // a fiber was spawned
  kStart,   // runs for the first time
  kRun,     // goes on
  kYield,   // left, and is ready
  kPark,    // left, to wait
  kEnd,     // left for good
  kWake,    // was made ready, here
  kSend,    // was put into the inbox of worker `number`
  kInject,  // was put into the injection queue
  kTake,    // was taken from the inbox or the injection queue
  kSteal,   // was taken from worker `number`
  kRescue,  // was taken from the next-slot of worker `number`, which is stuck
  kRing,    // worker `number` was rung; no fiber
  kSleep,   // no fiber
  kAwake,   // no fiber
};

struct EventRecord {
  std::int64_t when_us;
  Event what;
  int number;  // of another worker, where the event has one
  std::uint64_t fiber;
  int worker;  // who noted it; -1: a thread that is no worker
};

// One line for each, the oldest first. Call from: any thread.
std::string print_events(std::vector<EventRecord> events);

#if WEFT_EVENTS

class EventLog {
 public:
  explicit EventLog(int worker) : worker_(worker) {}

  // Call from: any thread. Never parks.
  void note(Event what, std::uint64_t fiber, int number = 0) {
    // relaxed, here and in last(): a log orders nothing, and a torn entry is only a strange line.
    Entry& entry = entries_[noted_.fetch_add(1, std::memory_order_relaxed) % kEntries];
    const auto now_us = static_cast<std::uint64_t>(os::now_ns() / 1000);
    entry.fiber.store(fiber, std::memory_order_relaxed);
    entry.rest.store(now_us << 24 | static_cast<std::uint64_t>(number & 0xffff) << 8 |
                         static_cast<std::uint64_t>(what),
                     std::memory_order_relaxed);
  }

  // Call from: any thread.
  std::vector<EventRecord> last() const {
    std::vector<EventRecord> events;
    const std::uint64_t noted = noted_.load(std::memory_order_relaxed);
    for (std::uint64_t i = noted > kEntries ? noted - kEntries : 0; i < noted; ++i) {
      const Entry& entry = entries_[i % kEntries];
      const std::uint64_t rest = entry.rest.load(std::memory_order_relaxed);
      events.push_back({static_cast<std::int64_t>(rest >> 24), static_cast<Event>(rest & 0xff),
                        static_cast<int>(rest >> 8 & 0xffff),
                        entry.fiber.load(std::memory_order_relaxed), worker_});
    }
    return events;
  }

 private:
  static constexpr std::size_t kEntries = 64;

  struct Entry {
    base::Atomic<std::uint64_t> fiber{0};
    base::Atomic<std::uint64_t> rest{0};  // microseconds, number, event: 40, 16 and 8 bits
  };

  const int worker_;
  base::Atomic<std::uint64_t> noted_{0};
  Entry entries_[kEntries];
};

#else

class EventLog {
 public:
  explicit EventLog(int) {}
  void note(Event, std::uint64_t, int = 0) {}
  std::vector<EventRecord> last() const { return {}; }
};

#endif

}  // namespace weft::sched
