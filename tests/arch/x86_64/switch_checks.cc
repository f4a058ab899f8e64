// The checks run on fibers and on the thread that switches them, so they note what is wrong and go on.
#include "tests/arch/x86_64/switch_checks.h"

#include <cstdio>
#include <cstring>

#include <execinfo.h>
#include <unwind.h>

#include "tests/arch/x86_64/small_fibers.h"
#include "tests/support/random.h"

namespace weft::test {
namespace {

const char* wrong = nullptr;

void expect(bool fact, const char* what) {
  if (!fact && wrong == nullptr) wrong = what;
}

// ---- Callee-saved registers

constexpr int kRegisters = 6;
constexpr int kCheckedFibers = 8;
constexpr int kSwitches = 1'000'000;

struct Patterns {
  explicit Patterns(Random& random) {
    for (std::uint64_t& word : words) word = random.next();
  }
  std::uint64_t words[kRegisters];
};

void switch_with_patterns(SmallFiber& self) {
  Random random(*static_cast<std::uint64_t*>(self.argument));
  for (int i = 0; i < kSwitches / kCheckedFibers; ++i) {
    const Patterns before(random);
    Patterns after(random);
    void* by = checked_call(reinterpret_cast<void*>(&weft_leave), &self, self.worker, before.words,
                            after.words);
    expect(by == self.worker, "weft_leave did not return the worker");
    expect(std::memcmp(before.words, after.words, sizeof before.words) == 0,
           "a callee-saved register of a fiber changed over a switch");
  }
}

const char* check_callee_saved(std::uint64_t seed) {
  wrong = nullptr;
  Random random(seed);
  std::uint64_t seeds[kCheckedFibers];
  SmallFibers fibers;
  for (std::uint64_t& one : seeds) {
    one = random.next();
    fibers.add(&switch_with_patterns, &one);
  }
  const Patterns before(random);
  Patterns after(random);
  fibers.run_checked(before.words, after.words);
  expect(std::memcmp(before.words, after.words, sizeof before.words) == 0,
         "a callee-saved register of the worker changed over weft_loop");
  return wrong;
}

// ---- Caller-saved registers

// More live values than there are vector registers, integers among them, in a width that the compiler chooses
// by its flags: what it keeps over a call it must have stored, for the other fibers change every register.
constexpr int kLanes = 24;
constexpr int kSpills = 20'000;

[[gnu::noinline]] void change_vectors(std::uint64_t with) {
  asm volatile(
      "movq %0, %%xmm0\n\t"
      "movaps %%xmm0, %%xmm1\n\tmovaps %%xmm0, %%xmm2\n\tmovaps %%xmm0, %%xmm3\n\t"
      "movaps %%xmm0, %%xmm4\n\tmovaps %%xmm0, %%xmm5\n\tmovaps %%xmm0, %%xmm6\n\t"
      "movaps %%xmm0, %%xmm7\n\tmovaps %%xmm0, %%xmm8\n\tmovaps %%xmm0, %%xmm9\n\t"
      "movaps %%xmm0, %%xmm10\n\tmovaps %%xmm0, %%xmm11\n\tmovaps %%xmm0, %%xmm12\n\t"
      "movaps %%xmm0, %%xmm13\n\tmovaps %%xmm0, %%xmm14\n\tmovaps %%xmm0, %%xmm15"
      :
      : "r"(with)
      : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
        "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
  // The upper halves, where there are any: whole registers are set to ones.
  if (__builtin_cpu_supports("avx2")) {
    asm volatile(
        "vpcmpeqd %%ymm0, %%ymm0, %%ymm0\n\tvmovdqa %%ymm0, %%ymm7\n\tvmovdqa %%ymm0, %%ymm8\n\t"
        "vmovdqa %%ymm0, %%ymm15\n\tvzeroupper"
        :
        :
        : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
          "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
  }
}

void spill_around_switches(SmallFiber& self) {
  Random random(*static_cast<std::uint64_t*>(self.argument));
  for (int i = 0; i < kSpills; ++i) {
    const std::uint64_t start = random.below(1 << 20);
    double numbers[kLanes];
    std::uint64_t words[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
      numbers[lane] = static_cast<double>(start) + lane;
      words[lane] = start ^ static_cast<std::uint64_t>(lane);
    }
    // Held in registers up to here, and wanted in registers after it.
    for (double& number : numbers) asm volatile("" : "+x"(number));
    change_vectors(start);
    self.yield();
    change_vectors(~start);
    double sum = 0;
    std::uint64_t mixed = 0;
    for (int lane = 0; lane < kLanes; ++lane) {
      sum += numbers[lane];
      mixed ^= words[lane];
    }
    expect(sum == static_cast<double>(start) * kLanes + kLanes * (kLanes - 1) / 2.0 && mixed == 0,
           "a value in a vector or general register changed over a switch");
  }
}

const char* check_caller_saved(std::uint64_t seed) {
  wrong = nullptr;
  Random random(seed);
  std::uint64_t seeds[4];
  SmallFibers fibers;
  for (std::uint64_t& one : seeds) {
    one = random.next();
    fibers.add(&spill_around_switches, &one);
  }
  fibers.run();
  return wrong;
}

// ---- Alignment

// The compiler may believe what it likes about the alignment: the processor checks it.
[[gnu::noinline]] void use_aligned_locals() {
  alignas(16) volatile char sixteen[16];
  alignas(32) volatile char thirty_two[32];
  alignas(64) volatile char sixty_four[64];
  asm volatile("movaps %%xmm0, %0" : "=m"(*const_cast<char(*)[16]>(&sixteen)));
  if (__builtin_cpu_supports("avx")) {
    asm volatile("vmovaps %%ymm0, %0\n\tvzeroupper" : "=m"(*const_cast<char(*)[32]>(&thirty_two)));
  }
  if (__builtin_cpu_supports("avx512f")) {
    asm volatile("vmovaps %%zmm0, %0\n\tvzeroupper" : "=m"(*const_cast<char(*)[64]>(&sixty_four)));
  }
}

const char* check_alignment(std::uint64_t) {
  wrong = nullptr;
  SmallFibers fibers;
  const SmallFiber& fiber = fibers.add([](SmallFiber& self) {
    use_aligned_locals();
    self.yield();
    use_aligned_locals();
    // The printing of a long double keeps vectors on the stack.
    char text[32];
    std::snprintf(text, sizeof text, "%.3Lf", 1.5L);
    expect(std::strcmp(text, "1.500") == 0, "snprintf prints a long double wrongly");
  });
  fibers.run();
  expect(reinterpret_cast<std::uintptr_t>(fiber.entry_rsp) % 16 == 8,
         "the entry of a fiber does not look like the entry of a called function");
  return wrong;
}

// ---- Unwinding

struct Unwound {
  int depth = 0;
  std::uintptr_t outermost = 0;
};

bool in_first_frame(std::uintptr_t address) {
  const auto start = reinterpret_cast<std::uintptr_t>(&weft_entry);
  return address >= start && address < start + 16;
}

[[gnu::noinline]] int frames_of_unwinder() {
  Unwound unwound;
  const _Unwind_Reason_Code end = _Unwind_Backtrace(
      [](_Unwind_Context* context, void* argument) {
        // The end itself is shown as a frame without an address.
        if (_Unwind_GetIP(context) == 0) return _URC_NO_REASON;
        auto& so_far = *static_cast<Unwound*>(argument);
        ++so_far.depth;
        so_far.outermost = _Unwind_GetIP(context);
        return _URC_NO_REASON;
      },
      &unwound);
  expect(end == _URC_END_OF_STACK, "_Unwind_Backtrace did not find the end of the stack");
  expect(in_first_frame(unwound.outermost), "_Unwind_Backtrace does not end in weft_entry");
  return unwound.depth;
}

[[gnu::noinline]] int frames_of_backtrace() {
  static void* frames[1024];
  const int depth = backtrace(frames, 1024);
  expect(depth > 0 && depth < 1024 &&
             in_first_frame(reinterpret_cast<std::uintptr_t>(frames[depth - 1])),
         "backtrace() does not end in weft_entry");
  return depth;
}

// The empty statement after the call keeps it from becoming a jump.
[[gnu::noinline]] int descend(int levels, int (*at_the_bottom)()) {
  const int depth = levels == 1 ? at_the_bottom() : descend(levels - 1, at_the_bottom);
  asm volatile("");
  return depth;
}

void unwind_from_every_depth(SmallFiber& self) {
  for (int (*count)() : {&frames_of_unwinder, &frames_of_backtrace}) {
    const int with_one = descend(1, count);
    for (int levels = 1; levels <= 500; ++levels) {
      expect(descend(levels, count) == with_one + levels - 1, "a backtrace misses frames");
      if (levels % 50 == 0) self.yield();
    }
    expect(with_one >= 4 && with_one <= 8, "a backtrace has frames that nobody called");
  }
}

const char* check_unwinding(std::uint64_t) {
  wrong = nullptr;
  SmallFibers fibers;
  fibers.add(&unwind_from_every_depth);
  fibers.add(&unwind_from_every_depth);
  fibers.run();
  return wrong;
}

// ---- Exceptions

[[gnu::noinline]] void throw_through_frames(int levels) {
  if (levels == 0) throw levels;
  throw_through_frames(levels - 1);
  asm volatile("");
}

const char* check_exceptions(std::uint64_t) {
  wrong = nullptr;
  SmallFibers fibers;
  static int caught;
  caught = 0;
  for (int i = 0; i < 3; ++i) {
    fibers.add([](SmallFiber& self) {
      for (int levels = 0; levels < 100; ++levels) {
        self.yield();
        try {
          throw_through_frames(levels);
        } catch (int) {
          ++caught;
        }
      }
    });
  }
  fibers.run();
  expect(caught == 300, "an exception was not caught on a fiber's stack");
  return wrong;
}

constexpr SwitchCheck kChecks[] = {
    {"A1", "callee-saved registers survive a switch", &check_callee_saved},
    {"A3", "what a compiler keeps in caller-saved registers survives a switch",
     &check_caller_saved},
    {"A4", "entry and locals are aligned", &check_alignment},
    {"A7", "backtraces have every frame and end in weft_entry", &check_unwinding},
    {"A8", "exceptions unwind a fiber's stack", &check_exceptions},
};

}  // namespace

std::span<const SwitchCheck> switch_checks() { return kChecks; }

}  // namespace weft::test
