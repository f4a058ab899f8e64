// The stack of a model thread, and what sanitizers must be told when one is left for another.
//
//   ModelStack stack = ModelStack::create();
//   own.leave(next);  weft_leave(...);  own.arrive(body);      // around each switch
//
// Promises: without a sanitizer leave and arrive are empty. The memory is from the heap, so that a
// leak checker looks into it; its lowest page is inaccessible, but not under ASan, whose leak
// checker would read it, and which guards blocks of the heap by itself.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define WEFT_MODEL_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WEFT_MODEL_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define WEFT_MODEL_TSAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define WEFT_MODEL_TSAN 1
#endif

#if defined(WEFT_MODEL_ASAN)
#include <sanitizer/common_interface_defs.h>
#elif defined(WEFT_MODEL_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

namespace weft::model {

struct ModelStack {
  static constexpr std::size_t kBytes = 256 * 1024;

  const void* bottom = nullptr;
  std::size_t size_bytes = 0;
  void* sanitizer_state = nullptr;  // ASan: the fake stack; TSan: the fiber

  static ModelStack create();

  // The stack that the caller is on.
  static ModelStack of_caller();

  void* top() const { return static_cast<std::byte*>(const_cast<void*>(bottom)) + size_bytes; }

  // On this stack, just before the switch. TSan takes the switch as done from here on, and as a
  // synchronization: there is one kernel thread, and only its order counts.
  void leave([[maybe_unused]] const ModelStack& to) {
#if defined(WEFT_MODEL_ASAN)
    __sanitizer_start_switch_fiber(&sanitizer_state, to.bottom, to.size_bytes);
#elif defined(WEFT_MODEL_TSAN)
    __tsan_switch_to_fiber(to.sanitizer_state, 0);
#endif
  }

  // On this stack, just after it. The first arrival is from the stack of the body: its bounds,
  // which ASan knows and we do not, are noted there.
  void arrive([[maybe_unused]] ModelStack& body) {
#if defined(WEFT_MODEL_ASAN)
    const void* bottom_before = nullptr;
    std::size_t size_before = 0;
    __sanitizer_finish_switch_fiber(sanitizer_state, &bottom_before, &size_before);
    if (body.bottom == nullptr) {
      body.bottom = bottom_before;
      body.size_bytes = size_before;
    }
#endif
  }
};

}  // namespace weft::model
