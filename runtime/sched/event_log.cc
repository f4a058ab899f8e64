#include "runtime/sched/event_log.h"

#include <algorithm>
#include <cstdio>

namespace weft::sched {
namespace {

// What a line says about its event: %llu is the fiber, %d the number of a worker.
struct Phrase {
  const char* text;
  bool names_fiber;
  bool names_worker;
};
constexpr Phrase kPhrases[] = {
    {"spawned", true, false},
    {"starts", true, false},
    {"goes on", true, false},
    {"yields", true, false},
    {"parks", true, false},
    {"ends", true, false},
    {"made ready", true, false},
    {"sent to worker", true, true},
    {"injected", true, false},
    {"taken in", true, false},
    {"stolen from worker", true, true},
    {"rescued from the next-slot of worker", true, true},
    {"rings worker", false, true},
    {"sleeps", false, false},
    {"awake", false, false},
};
static_assert(std::size(kPhrases) == static_cast<std::size_t>(Event::kAwake) + 1);

std::string line_of(const EventRecord& event, std::int64_t last_us) {
  if (static_cast<std::size_t>(event.what) >= std::size(kPhrases)) return "  (torn)\n";
  const Phrase& phrase = kPhrases[static_cast<std::size_t>(event.what)];
  char who[32] = "outside";
  if (event.worker >= 0) std::snprintf(who, sizeof who, "worker %d", event.worker);
  char fiber[32] = "";
  if (phrase.names_fiber) {
    std::snprintf(fiber, sizeof fiber, "fiber %llu ", static_cast<unsigned long long>(event.fiber));
  }
  char number[16] = "";
  if (phrase.names_worker) std::snprintf(number, sizeof number, " %d", event.number);
  char line[192];
  std::snprintf(line, sizeof line, "  -%lld us %s: %s%s%s\n",
                static_cast<long long>(last_us - event.when_us), who, fiber, phrase.text, number);
  return line;
}

}  // namespace

std::string print_events(std::vector<EventRecord> events) {
  if (events.empty()) return {};
  std::stable_sort(events.begin(), events.end(), [](const EventRecord& a, const EventRecord& b) {
    return a.when_us < b.when_us;
  });
  std::string text = "The last scheduling events, in microseconds before the last one:\n";
  for (const EventRecord& event : events) text += line_of(event, events.back().when_us);
  return text;
}

}  // namespace weft::sched
