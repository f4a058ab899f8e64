// Raw system calls: no libc, no errno, no cancellation point.
//
//   long r = arch::syscall(SYS_madvise, address, bytes, advice);
//   if (r < 0) ... -r is the errno
//
// The kernel takes the number in rax and arguments in rdi, rsi, rdx, r10, r8, r9; it destroys rcx (the
// return address) and r11 (the flags). Source: System V psABI, appendix A.2.
//
// Call from: anywhere, also a thread without a libc identity. Whether it blocks is the call's matter.
#pragma once

namespace weft::arch {

namespace internal {
template <class T>
[[gnu::always_inline]] inline long as_register(T value) {
  if constexpr (__is_same(T, decltype(nullptr))) {
    return 0;
  } else {
    return (long)value;  // pointers and integers alike, as the kernel sees them
  }
}
}  // namespace internal

template <class A = long, class B = long, class C = long, class D = long, class E = long,
          class F = long>
[[gnu::always_inline]] inline long syscall(long number, A a = 0, B b = 0, C c = 0, D d = 0, E e = 0,
                                           F f = 0) {
  register long r10 asm("r10") = internal::as_register(d);
  register long r8 asm("r8") = internal::as_register(e);
  register long r9 asm("r9") = internal::as_register(f);
  long result = number;
  asm volatile("syscall"
               : "+a"(result)
               : "D"(internal::as_register(a)), "S"(internal::as_register(b)),
                 "d"(internal::as_register(c)), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
}

}  // namespace weft::arch
