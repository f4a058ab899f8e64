#include "runtime/sched/level.h"

#include "runtime/sched/group.h"

namespace weft::sched {

void Level::leave() {
  fiber_->frame->level = outer_;
  if (raised() != Interruption::kNone) refresh_cancel(*fiber_);
}

Interruption interruption(const FiberBlock& fiber) {
  return interruption_from(fiber.frame->level, fiber);
}

Interruption report_interruption(const FiberBlock& fiber) {
  for (Level* level = fiber.frame->level; level != nullptr; level = level->outer()) {
    if (level->raised() == Interruption::kNone) continue;
    level->note_reported();
    return level->raised();
  }
  return fiber.group->cover().raised();
}

Interruption interruption_from(const Level* innermost, const FiberBlock& fiber) {
  for (const Level* level = innermost; level != nullptr; level = level->outer()) {
    if (level->raised() != Interruption::kNone) return level->raised();
  }
  return fiber.group->cover().raised();
}

void refresh_cancel(FiberBlock& fiber) {
  fiber.claim.withdraw(kCancel);
  // [level] Clear, then look: a canceller sets its flag, then the bit. If it set the bit before we
  // cleared it, we see its flag here; otherwise its bit comes after and stays.
  if (interruption(fiber) != Interruption::kNone) fiber.claim.request(kCancel);
}

}  // namespace weft::sched
