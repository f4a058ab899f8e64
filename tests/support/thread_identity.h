// What libc and the kernel must agree on about the calling kernel thread, whoever made it.
//
//   const test::ThreadSecrets secrets = test::read_secrets();                  // on main's thread
//   const char* wrong = test::check_identity(secrets);                         // on any other, or a fiber
//
// Promises: nothing here asserts: nullptr means that all is well, otherwise it is the first thing that is not.
#pragma once

#include <cctype>
#include <cstdint>
#include <cstring>
#include <mutex>

#include <linux/futex.h>
#include <linux/prctl.h>
#include <locale.h>
#include <pthread.h>
#include <sched.h>
#include <sys/rseq.h>
#include <sys/single_threaded.h>
#include <sys/syscall.h>

#include "arch/x86_64/syscall.h"

namespace weft::test {

// What all threads of a process have in common: a fiber compares it across a migration.
struct ThreadSecrets {
  std::uint64_t canary;
  std::uint64_t pointer_guard;
};

// One word of the calling thread's control block.
template <int kOffset>
[[gnu::noinline]] std::uint64_t control_block_word() {
  std::uint64_t word;
  asm volatile("movq %%fs:%c1, %0" : "=r"(word) : "i"(kOffset));
  return word;
}

inline ThreadSecrets read_secrets() {
  return {control_block_word<0x28>(), control_block_word<0x30>()};
}

inline long kernel_thread_id() { return arch::syscall(SYS_gettid); }

// sched_getcpu() reads the rseq area. The kernel's word is read before and after, to know that the thread
// stayed where it was.
inline const char* check_current_cpu() {
  for (int attempt = 0; attempt < 1000; ++attempt) {
    unsigned before = 0;
    unsigned after = 0;
    arch::syscall(SYS_getcpu, &before, nullptr, nullptr);
    const int claimed = sched_getcpu();
    arch::syscall(SYS_getcpu, &after, nullptr, nullptr);
    if (before == after && claimed == static_cast<int>(before)) return nullptr;
  }
  return "sched_getcpu() names another CPU than the kernel";
}

// `sched_getcpu()` also works without rseq; this one tells whether the kernel keeps the area up to date.
inline const char* check_rseq_registered() {
  if (__rseq_size == 0) return nullptr;
  const auto* area = reinterpret_cast<const char*>(control_block_word<0>()) + __rseq_offset;
  const int cpu = static_cast<int>(reinterpret_cast<const volatile struct rseq*>(area)->cpu_id);
  return cpu >= 0 ? nullptr : "rseq is not registered";
}

inline const char* check_thread_id() {
  void* robust_list = nullptr;
  std::size_t bytes = 0;
  if (arch::syscall(SYS_get_robust_list, 0, &robust_list, &bytes) != 0 || robust_list == nullptr) {
    return "no robust list is registered";
  }
  if (*(static_cast<int*>(robust_list) - 4) != kernel_thread_id()) {
    return "the thread id that libc keeps is not the kernel's";
  }
  // glibc keeps the owner of a recursive mutex by that id.
  pthread_mutex_t mutex = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
  pthread_mutex_lock(&mutex);
  const bool ours = mutex.__data.__owner == kernel_thread_id();
  pthread_mutex_unlock(&mutex);
  return ours ? nullptr : "a recursive mutex belongs to another thread id";
}

// The whole self-check.
inline const char* check_identity(const ThreadSecrets& of_main) {
  const std::uint64_t self = control_block_word<0>();
  if (self != control_block_word<0x10>()) return "the control block does not point to itself";
  if (self != pthread_self()) return "pthread_self() is not the control block";
  if (const char* wrong = check_thread_id()) return wrong;
  if (read_secrets().canary != of_main.canary) return "the stack canary differs from main's";
  if (read_secrets().pointer_guard != of_main.pointer_guard) return "the pointer guard differs";
  if (const char* wrong = check_rseq_registered()) return wrong;
  if (const char* wrong = check_current_cpu()) return wrong;
  if (std::isalpha('w') == 0 || std::toupper('w') != 'W') return "the ctype tables are not set up";
  if (uselocale(nullptr) != LC_GLOBAL_LOCALE) return "the thread has a locale of its own";
  if (std::strcmp(localeconv()->decimal_point, ".") != 0) return "the locale is not the process's";
  if (__libc_single_threaded != 0) return "libc believes that the process has one thread";
  return nullptr;
}

}  // namespace weft::test
