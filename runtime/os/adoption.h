// Adoption in place: the calling libc thread moves to a kernel thread made by raw clone.
//
//   os::Adoption adoption = os::adopt_current_thread(handover, boot_stack_top);
//   switch (adoption.outcome) { ... }        // on the new kernel thread, or still on the old one
//
// A bare clone would leave C++ broken: libc would think that the process has one thread, errno and
// every thread_local would be shared. So libc makes the thread, and the thread then changes the
// kernel thread under itself. Stack, TLS, pthread_self() and the registers stay; the thread id
// changes, in the one place where libc keeps it.
//
//   starter                      old kernel thread               new kernel thread
//                                clone ------------------------> waits for the old one's end
//   phase is kMoved <----------- phase = kMoved
//   passes libc's thread lock    waits for kLeave
//   order = kLeave ------------> notes its credentials, exits
//                                                                goes on in the caller
//
// Requires: the starter passes the lock that setuid() holds while it signals threads, once, between
// kMoved and kLeave (a pthread_join of another thread does). A setuid() that read the old thread id
// before the clone would otherwise wait for ever for the answer of a thread that has ended.
// Promises: afterwards the kernel knows as much of the new thread as of the old one: robust list,
// rseq area, alternate signal stack, signal mask; name, affinity and scheduling are inherited. What
// was refused leaves the ordinary libc thread that it was.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/base/atomic.h"

namespace weft::os {

// [handover] What a starter and the thread that it starts tell each other. Each word has one writer
// at a time, and every store is a release after which the writer touches nothing that the other may
// free.
struct Handover {
  enum Phase : std::uint32_t {  // written by the thread
    kStarting,
    kMoved,  // the new kernel thread exists, the old one waits for kLeave
    kReady,  // adopted, or not: waits for kRun or kQuit
    kStale,  // its credentials may be out of date: it ends, start another
  };
  enum Order : std::uint32_t {  // written by the starter
    kHold,
    kLeave,  // the old kernel thread may end
    kRun,
    kQuit,
  };
  base::Atomic<std::uint32_t> phase{kStarting};
  base::Atomic<std::uint32_t> order{kHold};
};

struct Adoption {
  enum class Outcome {
    kAdopted,
    kRefused,  // `step` and `error` say by what; the caller is an ordinary libc thread
    kStale,    // a setuid() ran meanwhile and reached only one of the two: this thread must end
  };
  Outcome outcome = Outcome::kAdopted;
  const char* step = nullptr;
  int error = 0;
};

// The low end of the stack that the caller leaves to the new kernel thread's first steps. A signal
// frame with every vector and matrix register (11 KiB) fits.
inline constexpr std::size_t kBootStackBytes = 16 << 10;

// Call from: a libc thread that was just created, whose stack reaches at least kBootStackBytes
// below every frame in use. Blocks until the starter says kLeave.
[[nodiscard]] Adoption adopt_current_thread(Handover& handover, void* boot_stack_top);

}  // namespace weft::os
