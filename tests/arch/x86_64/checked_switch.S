// What the tests of the switch cannot say in C++: fill every callee-saved register, look at every one
// afterwards, and note where the stack pointer was at the entry of a fiber.
//
// A frame of checked_call while the callee runs:
//
//        rsp + 56   return address
//        rsp +  8   rbp, rbx, r12, r13, r14, r15, downwards: the caller's
//        rsp +  0   seen

#include "arch/x86_64/asm.h"

        .text

// void* checked_call(void* function, void* first, void* second,
//                    const uint64_t patterns[6], uint64_t seen[6])
//
//   in         rdi = function, rsi, rdx = its arguments, rcx = what rbx, rbp, r12 to r15 shall hold
//   out        rax = what it returned; r8[...] = what they held afterwards
//   preserves  rbx, rbp, r12 to r15
//   clobbers   everything else
FUNCTION(checked_call)
        endbr64
        .irp    register, rbp, rbx, r12, r13, r14, r15
        pushq   %\register
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %\register, 0
        .endr
        pushq   %r8
        .cfi_adjust_cfa_offset 8
        movq    %rdi, %rax
        movq    %rsi, %rdi
        movq    %rdx, %rsi
        movq    0(%rcx), %rbx
        movq    8(%rcx), %rbp
        movq    16(%rcx), %r12
        movq    24(%rcx), %r13
        movq    32(%rcx), %r14
        movq    40(%rcx), %r15
        call    *%rax
        popq    %r8
        .cfi_adjust_cfa_offset -8
        movq    %rbx, 0(%r8)
        movq    %rbp, 8(%r8)
        movq    %r12, 16(%r8)
        movq    %r13, 24(%r8)
        movq    %r14, 32(%r8)
        movq    %r15, 40(%r8)
        .irp    register, r15, r14, r13, r12, rbx, rbp
        popq    %\register
        .cfi_adjust_cfa_offset -8
        .cfi_restore %\register
        .endr
        retq
END_FUNCTION(checked_call)

// void* noting_entry(void* fiber, void* worker)
//
//   in         rdi = the fiber, whose second 8 bytes are ours; rsi = the worker
//   out        goes on as small_fiber_main(fiber, worker)
//   preserves  everything
//   clobbers   nothing
FUNCTION(noting_entry)
        endbr64
        movq    %rsp, 8(%rdi)
        jmp     small_fiber_main
END_FUNCTION(noting_entry)

NOT_EXECUTABLE_STACK
