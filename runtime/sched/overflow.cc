// The handler decides by addresses alone: where the fault is, and where the thread's stack pointer is.
// si_code would not do, because a guard by advice and a guard by protection report different ones.
//
// It runs on a thread that may hold any lock, on memory that may be broken: the first line is written with
// one call before the stack is walked, so that a second fault while walking costs only the backtrace.
#include "runtime/sched/overflow.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <system_error>

#include <execinfo.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>
#include <unwind.h>

#include <absl/strings/str_cat.h>

#include "arch/x86_64/syscall.h"
#include "runtime/base/atomic.h"
#include "runtime/base/check.h"
#include "runtime/os/system.h"
#include "runtime/sched/stack_registry.h"

namespace weft::sched {
namespace {

constexpr std::array kSignals = {SIGSEGV, SIGBUS};
constexpr std::size_t kAlternateBytesMin = std::size_t{64} << 10;
constexpr std::size_t kInnermost = 24;
constexpr std::size_t kOutermost = 8;

// [report] Written while no handler of ours is installed for the first time, then constant while one is.
std::array<struct sigaction, kSignals.size()> former_actions;
base::Atomic<DescribeOwner> owner_describer{nullptr};
unsigned installed = 0;

// ---- The backtrace

struct Frames {
  std::uintptr_t fault;  // where the overflow happened: the frames before it are the handler's
  std::array<void*, kInnermost> innermost;
  std::array<void*, kOutermost> outermost;  // a ring
  std::size_t count = 0;
  bool below_handler = false;
};

_Unwind_Reason_Code add_frame(_Unwind_Context* context, void* argument) {
  auto& frames = *static_cast<Frames*>(argument);
  const std::uintptr_t address = _Unwind_GetIP(context);
  if (address == frames.fault) frames.below_handler = true;
  if (!frames.below_handler || address == 0) return _URC_NO_REASON;
  void* const frame = reinterpret_cast<void*>(address);
  if (frames.count < kInnermost) {
    frames.innermost[frames.count] = frame;
  } else {
    frames.outermost[frames.count % kOutermost] = frame;
  }
  ++frames.count;
  return _URC_NO_REASON;
}

void print(const char* text, std::size_t length) {
  // Raw: a short write or none leaves nobody to tell.
  arch::syscall(SYS_write, STDERR_FILENO, text, length);
}

void print_backtrace(const ucontext_t& context) {
  Frames frames = {};
  frames.fault = static_cast<std::uintptr_t>(context.uc_mcontext.gregs[REG_RIP]);
  _Unwind_Backtrace(add_frame, &frames);
  const std::size_t first = std::min(frames.count, kInnermost);
  backtrace_symbols_fd(frames.innermost.data(), static_cast<int>(first), STDERR_FILENO);
  const std::size_t last = std::min(frames.count - first, kOutermost);
  char text[64];
  if (const std::size_t left_out = frames.count - first - last; left_out > 0) {
    const int length = std::snprintf(text, sizeof text, "... %zu frames ...\n", left_out);
    print(text, static_cast<std::size_t>(length));
  }
  for (std::size_t i = frames.count - last; i < frames.count; ++i) {
    backtrace_symbols_fd(&frames.outermost[i % kOutermost], 1, STDERR_FILENO);
  }
}

// ---- The report

void report(const void* touched, const ucontext_t& context) {
  const auto place = find_stack(touched);
  if (!place || !place->in_guard) return;
  const auto stack_pointer = static_cast<std::uintptr_t>(context.uc_mcontext.gregs[REG_RSP]);
  const bool ours = stack_pointer >= place->guard && stack_pointer <= place->end;

  char who[512] = "a fiber";
  if (ours) {
    // acquire: [report] the function's own data; pairs with install_overflow_report().
    const DescribeOwner describe = owner_describer.load(std::memory_order_acquire);
    void* const owner = place->record->owner;
    if (describe != nullptr && owner != nullptr) {
      who[std::min(describe(owner, who, sizeof who), sizeof who - 1)] = '\0';
    }
  }
  // Somebody else's record may change under our eyes, so it is not read.
  const char* const what = ours ? "stack overflow in " : "stray access to the guard of ";
  char text[768];
  const int length = std::snprintf(
      text, sizeof text, "weft: %s%s: stack of %zu KiB at [0x%zx, 0x%zx), touched 0x%zx\n", what,
      who, (place->end - place->guard) >> 10, place->low, place->end,
      reinterpret_cast<std::uintptr_t>(touched));
  print(text, std::min(static_cast<std::size_t>(length), sizeof text - 1));
  print_backtrace(context);
}

// What would have happened to this signal without us.
void chain(int signal, siginfo_t* info, void* context) {
  const auto& former = former_actions[signal == SIGSEGV ? 0 : 1];
  if ((former.sa_flags & SA_SIGINFO) != 0) return former.sa_sigaction(signal, info, context);
  // A signal that somebody sent, rather than a fault, does not come again when the handler returns.
  const bool sent = info->si_code <= 0;
  if (former.sa_handler == SIG_IGN && sent) return;
  if (former.sa_handler != SIG_DFL && former.sa_handler != SIG_IGN) {
    return former.sa_handler(signal);
  }
  struct sigaction by_default = {};
  by_default.sa_handler = SIG_DFL;
  sigaction(signal, &by_default, nullptr);
  if (sent) {
    arch::syscall(SYS_rt_tgsigqueueinfo, arch::syscall(SYS_getpid), arch::syscall(SYS_gettid),
                  signal, info);
  }
}

void on_fault(int signal, siginfo_t* info, void* context) {
  const int error = errno;
  report(info->si_addr, *static_cast<const ucontext_t*>(context));
  errno = error;
  chain(signal, info, context);
}

bool is_ours(const struct sigaction& action) {
  return (action.sa_flags & SA_SIGINFO) != 0 && action.sa_sigaction == on_fault;
}

bool same_action(const struct sigaction& a, const struct sigaction& b) {
  return ((a.sa_flags ^ b.sa_flags) & SA_SIGINFO) == 0 && a.sa_handler == b.sa_handler;
}

// Whether a handler that came after us may still call ours, which could not be removed under it.
std::array<bool, kSignals.size()> left_behind;

void install_for(std::size_t index) {
  struct sigaction now = {};
  sigaction(kSignals[index], nullptr, &now);
  // Ours on top of a handler that ends in ours would go round for ever.
  if (left_behind[index] && !same_action(now, former_actions[index])) return;
  if (!is_ours(now)) former_actions[index] = now;
  struct sigaction ours = {};
  ours.sa_sigaction = on_fault;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&ours.sa_mask);
  sigaction(kSignals[index], &ours, nullptr);
  left_behind[index] = false;
}

void uninstall_for(std::size_t index) {
  struct sigaction now = {};
  sigaction(kSignals[index], nullptr, &now);
  if (is_ours(now)) {
    sigaction(kSignals[index], &former_actions[index], nullptr);
    left_behind[index] = false;
  } else {
    left_behind[index] = true;
  }
}

}  // namespace

void install_overflow_report(DescribeOwner describe) {
  // release: [report] what the function reads; pairs with report().
  owner_describer.store(describe, std::memory_order_release);
  if (installed++ > 0) return;
  // The first use of backtrace_symbols_fd loads a library, which a handler must not do.
  void* here = nullptr;
  backtrace(&here, 1);
  for (std::size_t i = 0; i < kSignals.size(); ++i) install_for(i);
}

void uninstall_overflow_report() {
  WEFT_CHECK(installed > 0, "the overflow report was uninstalled more often than installed");
  if (--installed > 0) return;
  for (std::size_t i = 0; i < kSignals.size(); ++i) uninstall_for(i);
}

absl::Status AlternateStack::enter() {
  const std::size_t signal_frame = getauxval(AT_MINSIGSTKSZ);
  const std::size_t wanted = std::max(kAlternateBytesMin, 4 * signal_frame);
  const std::size_t usable = (wanted + os::kPageBytes - 1) / os::kPageBytes * os::kPageBytes;
  const auto exhausted = [](const char* operation, int error) {
    return absl::ResourceExhaustedError(absl::StrCat("stack for signal handlers: ", operation, ": ",
                                                     std::generic_category().message(-error)));
  };
  os::Region region;
  if (int error = os::map_region(usable + os::kPageBytes, "weft signal stack", region)) {
    return exhausted("mmap", error);
  }
  int error = os::advise_guard(region, region.base, os::kPageBytes);
  if (error == -EINVAL) error = os::protect_guard(region.base, os::kPageBytes);
  if (error != 0) {
    os::unmap_region(region);
    return exhausted("guard", error);
  }
  stack_t stack = {};
  stack.ss_sp = region.base + os::kPageBytes;
  stack.ss_size = usable;
  error = os::system::sigaltstack(&stack, &former_);
  if (error != 0) {
    os::unmap_region(region);
    return exhausted("sigaltstack", error);
  }
  region_ = region;
  return absl::OkStatus();
}

void AlternateStack::leave() {
  if (region_.base == nullptr) return;
  // SS_ONSTACK only says that the thread was on it; it is not for setting.
  former_.ss_flags &= ~SS_ONSTACK;
  os::system::sigaltstack(&former_, nullptr);
  os::unmap_region(region_);
  region_ = {};
}

}  // namespace weft::sched
