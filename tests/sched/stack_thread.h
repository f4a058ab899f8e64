// A plain kernel thread that runs on a stack of the pool: what a fiber does to its stack, without a
// scheduler.
#pragma once

#include <cstddef>

#include <pthread.h>

#include "runtime/sched/overflow.h"
#include "runtime/sched/stack.h"

namespace weft::test {

// libc keeps its thread block at the upper end, and a sanitizer much more: give it a big stack.
inline constexpr std::size_t kThreadStackBytes = std::size_t{1} << 20;

// Runs body() on `stack`, with an alternate signal stack, and waits for its end. False when the thread
// could not be made.
template <class Body>
bool run_on(const sched::Stack& stack, Body body) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  const auto bytes = static_cast<std::size_t>(stack.top - stack.low);
  if (pthread_attr_setstack(&attributes, stack.low, bytes) != 0) return false;
  const auto start = [](void* argument) -> void* {
    sched::AlternateStack alternate;
    if (!alternate.enter().ok()) return nullptr;
    (*static_cast<Body*>(argument))();
    alternate.leave();
    return argument;
  };
  pthread_t thread;
  if (pthread_create(&thread, &attributes, start, &body) != 0) return false;
  void* result = nullptr;
  pthread_join(thread, &result);
  return result != nullptr;
}

}  // namespace weft::test
