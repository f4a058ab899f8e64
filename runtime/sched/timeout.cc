#include "runtime/sched/timeout.h"

#include <algorithm>

#include "runtime/sched/worker.h"

namespace weft::sched {
namespace {

std::uint64_t word_of(std::int64_t until_ns) {
  return static_cast<std::uint64_t>(std::max<std::int64_t>(until_ns, 0));
}

}  // namespace

TimeoutLevel::TimeoutLevel(FiberBlock& fiber, std::int64_t until_ns)
    : Timer(&on_fire), wanted_(word_of(until_ns)) {
  level_.enter(fiber);
  arm(until_ns);
}

TimeoutLevel::~TimeoutLevel() {
  disarm();  // [level] from here on nobody raises this level
  level_.leave();
}

void TimeoutLevel::arm(std::int64_t until_ns) {
  armed_ns_ = until_ns;
  current_worker()->timers().arm(*this, until_ns, os::now_ns());
}

void TimeoutLevel::restart(std::int64_t until_ns) {
  std::uint64_t seen = wanted_.load(std::memory_order_relaxed);  // relaxed: the CAS checks it
  if ((seen & kExpired) == 0 && until_ns >= armed_ns_ &&
      // relaxed [restart]: the word alone says what happened; it publishes nothing.
      wanted_.compare_exchange_strong(seen, word_of(until_ns), std::memory_order_relaxed)) {
    return;
  }
  disarm();
  if (level_.was_reported()) return;  // some wait has already said so: it stays
  const bool had_expired = expired();
  level_.lower();
  wanted_.store(word_of(until_ns), std::memory_order_relaxed);  // relaxed: disarmed, we are alone
  arm(until_ns);
  if (had_expired) refresh_cancel(*level_.fiber());
}

// Under the timers' lock.
void TimeoutLevel::on_fire(Timer& timer, std::int64_t now_ns, WakeBatch& batch) {
  auto& self = static_cast<TimeoutLevel&>(timer);
  // relaxed: the CAS checks it
  std::uint64_t wanted = self.wanted_.load(std::memory_order_relaxed);
  do {
    const auto until_ns = static_cast<std::int64_t>(wanted);
    if (until_ns > now_ns) {
      // It was moved meanwhile. Where it is armed does not change: the fiber disarms it there.
      self.home->insert(self, until_ns, now_ns);
      return;
    }
    // relaxed [restart]: see restart().
  } while (
      !self.wanted_.compare_exchange_weak(wanted, wanted | kExpired, std::memory_order_relaxed));
  if (self.level_.raise(Interruption::kDeadlineExceeded)) {
    batch.request(*self.level_.fiber(), kCancel);
  }
}

}  // namespace weft::sched
