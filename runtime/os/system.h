// The system calls of the runtime, behind one seam at which a test can make call k fail.
//
//   long r = os::system::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
//   if (r < 0) return errno_to_status(-r, "mmap");
//
// Every function returns what the kernel returns: a value, or a negative errno. `errno` is never used:
// it belongs to the fiber.
//
// Requires: nothing. Promises: with no fault armed, a call costs one load and a predicted branch more.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include <poll.h>
#include <signal.h>
#include <sys/types.h>

namespace weft::os::system {

// A line each would hide the rest of the file.
// clang-format off
enum class Call : std::uint8_t {
  kMmap, kMunmap, kMprotect, kMadvise, kClone, kIoUringSetup, kIoUringRegister, kIoUringEnter,
  kEventfd, kSocket, kBind, kListen, kSetsockopt, kAccept, kShutdown, kClose, kSend,
  kReceive, kOpen, kMunlock, kPrctl, kSigaltstack, kGetRobustList, kRseq, kPoll,
  // Operations that a ring is given, by what they are: the fault is decided when one is prepared.
  kRingAccept, kRingConnect, kRingReceive, kRingSend, kRingPoll,
  kCount,
};
// clang-format on

// ---- The seam. For tests only: one fault of each kind, or a plan; by any thread.

// Fails call number `nth` (counted from 0, over all threads, from now on) of kind `call` with `error`
// and the `repeat - 1` calls of that kind after it. Only calls that `advice` matches count where it is
// not -1 (madvise, or the prot of mmap and mprotect).
void arm_fault(Call call, unsigned nth, int error, unsigned repeat = 1, int advice = -1);
void disarm_faults();
// How many calls of that kind were made since the last arm_fault or disarm_faults.
unsigned calls_seen(Call call);

// Decides about every call, from any thread, in the place of the faults above.
class FaultPlan {
 public:
  virtual ~FaultPlan() = default;
  // The negative errno to return, or 0 to make the call.
  virtual int fault(Call call) = 0;
  // How many of the bytes to ask for in this send or receive, at least one: a short one is made.
  virtual unsigned transfer(Call, unsigned bytes) { return bytes; }
};
// Requires: the plan lives until disarm_faults() and until the threads that may be in it have ended.
void arm_plan(FaultPlan& plan);

namespace internal {
extern std::atomic<bool> faults_armed;
// relaxed: a test arms its fault before it starts the threads that must see it.
inline bool armed() { return faults_armed.load(std::memory_order_relaxed); }
// The negative errno to return, or 0 to make the call.
int consult(Call call, int advice);
inline int fault(Call call, int advice = -1) { return armed() ? consult(call, advice) : 0; }
// How many bytes a send or receive asks for while a fault is armed.
unsigned shortened(Call call, unsigned bytes);
}  // namespace internal

// ---- Memory
// For who maps memory past libc, as these calls and liburing do: TSan does not see that. It keeps what it
// knew of memory that was unmapped, and takes what is mapped at the same addresses for the same variables,
// which two threads use without order. There is an order, made by the kernel, that maps nothing there
// before the other mapping is gone. So unmapping is a release and mapping an acquire, of one address for
// all memory, since nobody knows who is given it next. The price: a race between what one thread does
// before it unmaps and another after it maps is not found.
void before_unmapping();
void after_mapping();

long mmap(void* at, std::size_t bytes, int prot, int flags, int fd, off_t offset);
int munmap(void* at, std::size_t bytes);
int mprotect(void* at, std::size_t bytes, int prot);
int madvise(void* at, std::size_t bytes, int advice);
int munlock(void* at, std::size_t bytes);
int prctl(int option, long a, long b = 0, long c = 0, long d = 0);

// ---- Signals
int sigaltstack(const stack_t* wanted, stack_t* former);

// ---- This thread
long get_robust_list(void** head, std::size_t* bytes);
int rseq(void* area, unsigned bytes, unsigned signature);

// ---- Descriptors
int eventfd(unsigned value, int flags);
int close(int fd);
int socket(int domain, int type, int protocol);
int bind(int fd, const void* address, unsigned length);
int listen(int fd, int backlog);
int setsockopt(int fd, int level, int name, const void* value, unsigned length);
int shutdown(int fd, int how);
long send(int fd, const void* bytes, std::size_t length, int flags);
long receive(int fd, void* bytes, std::size_t length, int flags);
int accept(int fd, int flags);
int open(const char* path, int flags);
int poll(pollfd* waiting, unsigned count, int timeout_ms);

}  // namespace weft::os::system
