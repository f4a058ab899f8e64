#include "tests/arch/x86_64/raw_thread_bodies.h"

#include <sys/syscall.h>

#include "arch/x86_64/syscall.h"

namespace weft::arch::test {

void testify(RawThread* self) {
  auto* witness = reinterpret_cast<Witness*>(self);
  witness->id_at_start = self->id;
  witness->id_from_kernel = static_cast<std::uint32_t>(syscall(SYS_gettid));
  // This file keeps its frame pointers, so the word at this one is what rbp was before.
  auto* frame = static_cast<std::uintptr_t*>(__builtin_frame_address(0));
  witness->stack_address = reinterpret_cast<std::uintptr_t>(frame);
  witness->frame_above = *frame;
}

void count(RawThread* self) {
  auto* counter = reinterpret_cast<Counter*>(self);
  Tally* tally = counter->tally;
  counter_add(&tally->arrived, 1);
  while (counter_add(&tally->arrived, 0) < tally->threads) syscall(SYS_sched_yield);
  for (std::uint64_t i = 0; i < counter->turns; ++i) counter_add(&tally->atomic, 1);
  for (std::uint64_t i = 0; i < counter->turns; ++i) {
    spin_lock(&tally->lock);
    ++tally->locked;
    spin_unlock(&tally->lock);
  }
}

void read_byte(RawThread* self) {
  auto* reader = reinterpret_cast<Reader*>(self);
  char byte;
  reader->bytes_read = syscall(SYS_read, reader->fd, &byte, 1);
}

}  // namespace weft::arch::test
