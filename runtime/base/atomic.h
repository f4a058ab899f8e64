// The one name through which every lock-free part of weft declares its atomics.
//
//   base::Atomic<std::uint32_t> head{0};
//   head.store(1, std::memory_order_release);
//
// The same source is compiled a second time with WEFT_MODEL defined: then each atomic operation is a
// point where the controlled scheduler of tests/model may switch to another model thread, and waiting
// loops call base::spin_hint() to let it. With WEFT_RELACY it is compiled over the atomics of relacy,
// which explores what weak memory orders allow.
//
// Requires: memory orders are always written out; there is no default to fall back on in review.
#pragma once

#include <atomic>

#if defined(WEFT_MODEL)
#include "tests/model/atomic.h"
#elif defined(WEFT_RELACY)
#include "tests/model/relacy_atomic.h"
#else
#include "arch/x86_64/cpu.h"
#endif

namespace weft::base {

// spin_hint is called in every loop that waits for another thread to write.
#if defined(WEFT_MODEL)

template <class T>
using Atomic = model::Atomic<T>;

inline void spin_hint() { model::spin_hint(); }

#elif defined(WEFT_RELACY)

template <class T>
using Atomic = relacy::Atomic<T>;

inline void spin_hint() { relacy::spin_hint(); }

#else

template <class T>
using Atomic = std::atomic<T>;

inline void spin_hint() { arch::pause(); }

#endif

}  // namespace weft::base
