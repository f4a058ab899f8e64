// Adoption in place; adoption.h has the picture. Everything before the clone and after the old
// kernel thread's end is ordinary code. Only leaving() and arriving() run while two kernel threads
// share one TLS: they make raw system calls, and nothing else.

#include "runtime/os/adoption.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>

#include <linux/prctl.h>
#include <linux/sched.h>
#include <sys/syscall.h>

#if __has_include(<sys/rseq.h>)
#include <sys/rseq.h>
#endif

#include "arch/x86_64/adopt.h"
#include "arch/x86_64/syscall.h"
#include "arch/x86_64/uninstrumented.h"
#include "runtime/base/plant.h"
#include "runtime/os/futex.h"
#include "runtime/os/system.h"

namespace weft::os {
namespace {

// What setuid() and its relatives change, thread by thread, as the kernel sees it.
struct Credentials {
  static constexpr long kGroupsMax = 256;
  std::array<unsigned, 3> uids;
  std::array<unsigned, 3> gids;
  long group_count;
  std::array<unsigned, kGroupsMax> groups;
};

// Where libc and the kernel keep what they know of one thread.
struct Registrations {
  void* robust_list;
  std::size_t robust_list_bytes;
  int* tid_word;
  int* clear_word;
  stack_t signal_stack;
};

// Lives in the frame of adopt_current_thread, which both kernel threads can see.
struct Move {
  Handover& handover;
  // [gone] Set to 1 before the clone; cleared by the kernel, which then wakes, when the old thread
  // ends.
  base::Atomic<std::uint32_t> gone{1};
  Credentials of_old_thread{};
};

// Every signal but number 33, by which glibc carries setuid() to all threads (its SIGSETXID). The
// sender waits for an answer: a thread of the pair that blocked it would make it wait for us, and
// we wait for it.
constexpr std::uint64_t kAllButSetxid = ~(std::uint64_t{1} << (33 - 1));

// rseq(2) rejects a length below 32 although __rseq_size may say 20 or 28; this is what glibc
// registers.
constexpr unsigned kRseqBytesMin = 32;
constexpr unsigned kRseqSignature = 0x53053053;
constexpr int kRseqCpuUnavailable = -2;

constexpr unsigned long kCloneFlags =
    CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_IO |
    CLONE_SETTLS | (base::planted(63) ? 0 : CLONE_PARENT_SETTID) | CLONE_CHILD_CLEARTID;

WEFT_UNINSTRUMENTED void read_credentials(Credentials& to) {
  unsigned* const uids = reinterpret_cast<unsigned*>(&to.uids);
  unsigned* const gids = reinterpret_cast<unsigned*>(&to.gids);
  arch::syscall(SYS_getresuid, uids, uids + 1, uids + 2);
  arch::syscall(SYS_getresgid, gids, gids + 1, gids + 2);
  to.group_count = arch::syscall(SYS_getgroups, Credentials::kGroupsMax, &to.groups);
}

WEFT_UNINSTRUMENTED void wait_while(const base::Atomic<std::uint32_t>& word, std::uint32_t value,
                                    FutexScope scope) {
  const auto* plain = reinterpret_cast<const std::uint32_t*>(&word);
  // acquire: [handover] sees what the starter did before its order; [gone] sees what the old thread
  // wrote.
  while (__atomic_load_n(plain, __ATOMIC_ACQUIRE) == value) {
    futex_wait(word, value, scope);
  }
}

// On the old kernel thread, which answers signal 33 until nobody can hold its thread id any more.
WEFT_UNINSTRUMENTED void leaving(void* argument) {
  Move& move = *static_cast<Move*>(argument);
  // release: [handover] publishes the tid word, which clone wrote; pairs with the starter's wait.
  __atomic_store_n(reinterpret_cast<std::uint32_t*>(&move.handover.phase),
                   std::uint32_t{Handover::kMoved}, __ATOMIC_RELEASE);
  futex_wake(move.handover.phase, 1);
  wait_while(move.handover.order, Handover::kHold, FutexScope::kPrivate);
  read_credentials(move.of_old_thread);
  // Not unregistered: rseq and the robust list. The kernel drops its own knowledge of them with the
  // thread, and their memory belongs to the new one.
  while (true) arch::syscall(SYS_exit, 0);
}

// On the new kernel thread and the boot stack. It shares its TLS with the old one until this
// returns.
WEFT_UNINSTRUMENTED void arriving(void* argument) {
  // Shared, because the kernel's wake at a thread's end is.
  wait_while(static_cast<Move*>(argument)->gone, 1, FutexScope::kShared);
}

Adoption refused(const char* step, long error) {
  return {Adoption::Outcome::kRefused, step, static_cast<int>(-error)};
}

// Finds what the kernel knows of this thread, and checks what we only believe to know of libc.
Adoption look_up(Registrations& found) {
  if (long r = system::get_robust_list(&found.robust_list, &found.robust_list_bytes); r < 0) {
    return refused("get_robust_list", r);
  }
  if (found.robust_list == nullptr) return refused("get_robust_list: none registered", -ENOSYS);
  // glibc keeps the thread id two pointers before the head of the robust list. It promises that to
  // nobody, so the value decides: with another libc it is something else.
  found.tid_word = static_cast<int*>(found.robust_list) - 4;
  if (*found.tid_word != arch::syscall(SYS_gettid)) {
    return refused("libc keeps the thread id elsewhere", -EPROTO);
  }
  // The word whose clearing pthread_join awaits; since glibc 2.43 it is not the one with the thread
  // id.
  if (long r = system::prctl(PR_GET_TID_ADDRESS, reinterpret_cast<long>(&found.clear_word));
      r < 0) {
    return refused("prctl(PR_GET_TID_ADDRESS)", r);
  }
  if (found.clear_word == nullptr) return refused("prctl(PR_GET_TID_ADDRESS): none", -EPROTO);
  const long group_count = arch::syscall(SYS_getgroups, 0, nullptr);
  if (group_count < 0) return refused("getgroups", group_count);
  if (group_count > Credentials::kGroupsMax) {
    return refused("more than 256 supplementary groups", -E2BIG);
  }
  arch::syscall(SYS_sigaltstack, nullptr, &found.signal_stack);
  return {};
}

// Tells the kernel about its new thread what the old one's creator had told it.
void register_again(const Registrations& found) {
  // Neither can fail: the values come from the kernel itself.
  arch::syscall(SYS_set_robust_list, found.robust_list, found.robust_list_bytes);
  if ((found.signal_stack.ss_flags & SS_DISABLE) == 0) {
    arch::syscall(SYS_sigaltstack, &found.signal_stack, nullptr);
  }
#if __has_include(<sys/rseq.h>)
  if (__rseq_size == 0 || base::planted(64)) return;  // libc does not use it
  auto* area = static_cast<char*>(arch::thread_control_block()) + __rseq_offset;
  if (system::rseq(area, std::max(__rseq_size, kRseqBytesMin), kRseqSignature) < 0) {
    // Else sched_getcpu() would for ever name the old thread's last CPU; so libc asks the kernel.
    reinterpret_cast<struct rseq*>(area)->cpu_id = static_cast<unsigned>(kRseqCpuUnavailable);
  }
#endif
}

bool same(const Credentials& a, const Credentials& b) {
  return a.uids == b.uids && a.gids == b.gids && a.group_count == b.group_count &&
         a.group_count >= 0 &&
         std::equal(a.groups.begin(), a.groups.begin() + a.group_count, b.groups.begin());
}

}  // namespace

Adoption adopt_current_thread(Handover& handover, void* boot_stack_top) {
  Registrations registrations{};
  if (Adoption found = look_up(registrations); found.outcome != Adoption::Outcome::kAdopted) {
    return found;
  }
  // No signal handler may run on the new kernel thread while it has not yet arrived. These calls
  // are raw: libc's own never touch its two internal signals.
  std::uint64_t mask = 0;
  arch::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &kAllButSetxid, &mask, sizeof mask);

  Move move{handover};
  arch::syscall(SYS_set_tid_address, &move.gone);
  const arch::AdoptCall call{
      .flags = kCloneFlags,
      .boot_stack_top = boot_stack_top,
      .tid_word = registrations.tid_word,
      .clear_word = registrations.clear_word,
      .tls = arch::thread_control_block(),
      .argument = &move,
      .arriving = arriving,
      .leaving = leaving,
  };
  long r = system::internal::fault(system::Call::kClone);
  if (r == 0) r = arch::weft_adopt(&call);

  Adoption adoption;
  if (r < 0) {
    arch::syscall(SYS_set_tid_address, registrations.clear_word);
    adoption = refused("clone", r);
  } else {
    register_again(registrations);
    Credentials mine{};
    read_credentials(mine);
    if (!same(mine, move.of_old_thread)) adoption.outcome = Adoption::Outcome::kStale;
  }
  if constexpr (!base::planted(65))
    arch::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, nullptr, sizeof mask);
  return adoption;
}

}  // namespace weft::os
