#include "runtime/os/system.h"

#include <fcntl.h>
#include <sys/syscall.h>

#include "arch/x86_64/syscall.h"
#include "runtime/base/sanitizer.h"

#if WEFT_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace weft::os::system {
namespace internal {

std::atomic<bool> faults_armed{false};

}  // namespace internal

namespace {

struct Fault {
  std::atomic<unsigned> seen{0};
  std::atomic<unsigned> first{~0u};
  std::atomic<unsigned> end{0};
  std::atomic<int> error{0};
  std::atomic<int> advice{-1};
};

Fault faults[static_cast<unsigned>(Call::kCount)];
std::atomic<FaultPlan*> plan_armed{nullptr};

Fault& fault_of(Call call) { return faults[static_cast<unsigned>(call)]; }

// Every function below is one of these: the fault, or the call.
template <class... A>
long make(Call call, long number, int advice, A... arguments) {
  if (int error = internal::fault(call, advice)) return error;
  return arch::syscall(number, arguments...);
}

}  // namespace

namespace internal {

int consult(Call call, int advice) {
  // acquire: the plan as arm_plan() found it.
  if (FaultPlan* plan = plan_armed.load(std::memory_order_acquire)) return plan->fault(call);
  // relaxed: the counters publish nothing; a test arms before it starts the threads that call.
  Fault& fault = fault_of(call);
  const int wanted = fault.advice.load(std::memory_order_relaxed);
  if (wanted != -1 && wanted != advice) return 0;
  const unsigned index = fault.seen.fetch_add(1, std::memory_order_relaxed);
  const bool hit = index >= fault.first.load(std::memory_order_relaxed) &&
                   index < fault.end.load(std::memory_order_relaxed);
  return hit ? -fault.error.load(std::memory_order_relaxed) : 0;
}

unsigned shortened(Call call, unsigned bytes) {
  FaultPlan* plan = plan_armed.load(std::memory_order_acquire);  // acquire: as in consult()
  return plan == nullptr ? bytes : plan->transfer(call, bytes);
}

}  // namespace internal

void arm_plan(FaultPlan& plan) {
  plan_armed.store(&plan, std::memory_order_release);  // release: pairs with consult()
  internal::faults_armed.store(true, std::memory_order_release);
}

void arm_fault(Call call, unsigned nth, int error, unsigned repeat, int advice) {
  // relaxed: as in consult().
  Fault& fault = fault_of(call);
  fault.seen.store(0, std::memory_order_relaxed);
  fault.first.store(nth, std::memory_order_relaxed);
  fault.end.store(repeat > ~0u - nth ? ~0u : nth + repeat, std::memory_order_relaxed);
  fault.error.store(error, std::memory_order_relaxed);
  fault.advice.store(advice, std::memory_order_relaxed);
  internal::faults_armed.store(true, std::memory_order_release);  // after the plan above
}

void disarm_faults() {
  internal::faults_armed.store(false, std::memory_order_relaxed);  // relaxed: as in consult()
  plan_armed.store(nullptr, std::memory_order_relaxed);
  for (Fault& fault : faults) {
    fault.seen.store(0, std::memory_order_relaxed);
    fault.first.store(~0u, std::memory_order_relaxed);
    fault.end.store(0, std::memory_order_relaxed);
    fault.advice.store(-1, std::memory_order_relaxed);
  }
}

unsigned calls_seen(Call call) {
  return fault_of(call).seen.load(std::memory_order_relaxed);  // relaxed: a statistic
}

#if WEFT_TSAN
namespace {
char mappings;
}
void before_unmapping() { __tsan_release(&mappings); }
void after_mapping() { __tsan_acquire(&mappings); }
#else
void before_unmapping() {}
void after_mapping() {}
#endif

long mmap(void* at, std::size_t bytes, int prot, int flags, int fd, off_t offset) {
  const long result = make(Call::kMmap, SYS_mmap, prot, at, bytes, prot, flags, fd, offset);
  after_mapping();
  return result;
}
int munmap(void* at, std::size_t bytes) {
  before_unmapping();
  return static_cast<int>(make(Call::kMunmap, SYS_munmap, -1, at, bytes));
}
int mprotect(void* at, std::size_t bytes, int prot) {
  return static_cast<int>(make(Call::kMprotect, SYS_mprotect, prot, at, bytes, prot));
}
int madvise(void* at, std::size_t bytes, int advice) {
  return static_cast<int>(make(Call::kMadvise, SYS_madvise, advice, at, bytes, advice));
}
int munlock(void* at, std::size_t bytes) {
  return static_cast<int>(make(Call::kMunlock, SYS_munlock, -1, at, bytes));
}
int prctl(int option, long a, long b, long c, long d) {
  return static_cast<int>(make(Call::kPrctl, SYS_prctl, option, option, a, b, c, d));
}
int sigaltstack(const stack_t* wanted, stack_t* former) {
  return static_cast<int>(make(Call::kSigaltstack, SYS_sigaltstack, -1, wanted, former));
}
long get_robust_list(void** head, std::size_t* bytes) {
  return make(Call::kGetRobustList, SYS_get_robust_list, -1, 0, head, bytes);
}
int rseq(void* area, unsigned bytes, unsigned signature) {
  return static_cast<int>(make(Call::kRseq, SYS_rseq, -1, area, bytes, 0, signature));
}
int eventfd(unsigned value, int flags) {
  return static_cast<int>(make(Call::kEventfd, SYS_eventfd2, -1, value, flags));
}
// Linux gives the number free before anything can fail, and so does a fault.
int close(int fd) {
  const auto result = static_cast<int>(arch::syscall(SYS_close, fd));
  const int error = internal::fault(Call::kClose);
  return error != 0 ? error : result;
}
int socket(int domain, int type, int protocol) {
  return static_cast<int>(make(Call::kSocket, SYS_socket, -1, domain, type, protocol));
}
int bind(int fd, const void* address, unsigned length) {
  return static_cast<int>(make(Call::kBind, SYS_bind, -1, fd, address, length));
}
int listen(int fd, int backlog) {
  return static_cast<int>(make(Call::kListen, SYS_listen, -1, fd, backlog));
}
int setsockopt(int fd, int level, int name, const void* value, unsigned length) {
  return static_cast<int>(
      make(Call::kSetsockopt, SYS_setsockopt, -1, fd, level, name, value, length));
}
int shutdown(int fd, int how) {
  return static_cast<int>(make(Call::kShutdown, SYS_shutdown, -1, fd, how));
}
long send(int fd, const void* bytes, std::size_t length, int flags) {
  if (internal::armed()) length = internal::shortened(Call::kSend, static_cast<unsigned>(length));
  return make(Call::kSend, SYS_sendto, -1, fd, bytes, length, flags, nullptr, 0);
}
long receive(int fd, void* bytes, std::size_t length, int flags) {
  if (internal::armed())
    length = internal::shortened(Call::kReceive, static_cast<unsigned>(length));
  return make(Call::kReceive, SYS_recvfrom, -1, fd, bytes, length, flags, nullptr, nullptr);
}
int accept(int fd, int flags) {
  return static_cast<int>(make(Call::kAccept, SYS_accept4, -1, fd, nullptr, nullptr, flags));
}
int open(const char* path, int flags) {
  return static_cast<int>(make(Call::kOpen, SYS_openat, -1, AT_FDCWD, path, flags, 0));
}

int poll(pollfd* waiting, unsigned count, int timeout_ms) {
  return static_cast<int>(make(Call::kPoll, SYS_poll, -1, waiting, count, timeout_ms));
}

}  // namespace weft::os::system
