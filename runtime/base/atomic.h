// The one name through which every lock-free part of weft declares its atomics.
//
//   base::Atomic<std::uint32_t> head{0};
//   head.store(1, std::memory_order_release);
//
// The same source is compiled a second time with WEFT_MODEL defined: then each atomic operation is a
// point where the controlled scheduler of tests/model may switch to another model thread, and waiting
// loops call base::spin_hint() to let it.
//
// Requires: memory orders are always written out; there is no default to fall back on in review.
#pragma once

#include <atomic>

#ifdef WEFT_MODEL
#include "tests/model/atomic.h"
#else
#include "arch/x86_64/cpu.h"
#endif

namespace weft::base {

#ifdef WEFT_MODEL

template <class T>
using Atomic = model::Atomic<T>;

// Called in every loop that waits for another thread to write.
inline void spin_hint() { model::spin_hint(); }

#else

template <class T>
using Atomic = std::atomic<T>;

// Called in every loop that waits for another thread to write.
inline void spin_hint() { arch::pause(); }

#endif

}  // namespace weft::base
