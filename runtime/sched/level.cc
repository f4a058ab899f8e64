#include "runtime/sched/level.h"

#include "runtime/base/plant.h"
#include "runtime/sched/group.h"

namespace weft::sched {

namespace {

// What is asked of the fiber whatever its levels are: by its group, or by its handle.
Interruption interruption_of_whole(const FiberBlock& fiber) {
  const Interruption why = fiber.group->cover().raised();
  if (why != Interruption::kNone) return why;
  return fiber.claim.load().ending() ? Interruption::kCancelled : Interruption::kNone;
}

}  // namespace

void Level::leave() {
  fiber_->frame->level = outer_;
  if (raised() != Interruption::kNone) refresh_cancel(*fiber_);
}

Interruption interruption(const FiberBlock& fiber) {
  for (const Level* level = fiber.frame->level; level != nullptr; level = level->outer()) {
    if (level->raised() != Interruption::kNone) return level->raised();
  }
  return interruption_of_whole(fiber);
}

Interruption report_interruption(const FiberBlock& fiber) {
  return report_interruption_from(fiber.frame->level, fiber);
}

Interruption report_interruption_from(Level* innermost, const FiberBlock& fiber) {
  for (Level* level = innermost; level != nullptr; level = level->outer()) {
    if (level->raised() == Interruption::kNone) continue;
    level->note_reported();
    return level->raised();
  }
  return interruption_of_whole(fiber);
}

void refresh_cancel(FiberBlock& fiber) {
  fiber.claim.withdraw(kCancel);
  // [level] Clear, then look: a canceller sets its flag, then the bit. If it set the bit before we
  // cleared it, we see its flag here; otherwise its bit comes after and stays.
  if (interruption(fiber) != Interruption::kNone && !base::planted(19)) {
    fiber.claim.request(kCancel);
  }
}

}  // namespace weft::sched
