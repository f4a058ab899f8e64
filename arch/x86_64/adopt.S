// The clone of adopt.h: one call, two kernel threads inside it, one return.
//
// The caller's stack, which is one mapping; the boot stack is its low end:
//
//   low                                                                     high
//   | boot stack    | free | frames of leaving() | 6 registers, return | caller
//                   ^ boot_stack_top             ^ rbx
//
// Both kernel threads keep rbx, so the unwind information counts from there: a backtrace of either
// shows the caller. The new thread may move up to rbx only when the old one has left that place for ever.
//
// The new kernel thread returns through frames that it never called: one more reason why asm.h does not
// claim shadow stacks.

#include "arch/x86_64/asm.h"

        .text

// long weft_adopt(const AdoptCall* call)
//
//   in         rdi = call; rsp as after any call
//   out        rax = 0 on the new kernel thread; a negative errno on the old one
//   preserves  rbx, rbp, r12 to r15, mxcsr, the x87 control word
//   clobbers   everything else
FUNCTION(weft_adopt)
        endbr64                         // may be the target of an indirect call
        .irp    register, rbp, rbx, r12, r13, r14, r15
        pushq   %\register
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %\register, 0
        .endr
        movq    %rsp, %rbx
        .cfi_def_cfa_register %rbx

        movq    40(%rdi), %r12          // argument
        movq    48(%rdi), %r13          // arriving
        movq    56(%rdi), %r14          // leaving

        movl    $56, %eax               // SYS_clone
        movq    8(%rdi), %rsi           // boot_stack_top
        movq    16(%rdi), %rdx          // tid_word
        movq    24(%rdi), %r10          // clear_word
        movq    32(%rdi), %r8           // tls
        movq    0(%rdi), %rdi           // flags, last: the others were read through rdi
        syscall
        testq   %rax, %rax
        js      .Lrefused
        jz      .Lnew

        movq    %r12, %rdi
        subq    $8, %rsp                // 6 registers and a return address: not aligned
        call    *%r14
        ud2                             // leaving() never returns

.Lnew:  movq    %r12, %rdi
        call    *%r13
        movq    %rbx, %rsp              // the old thread has ended: its place on the stack is ours
        xorl    %eax, %eax

.Lrefused:
        .cfi_def_cfa_register %rsp
        .irp    register, r15, r14, r13, r12, rbx, rbp
        popq    %\register
        .cfi_adjust_cfa_offset -8
        .cfi_restore %\register
        .endr
        retq
END_FUNCTION(weft_adopt)

NOT_EXECUTABLE_STACK
