// The clone of adopt.h: one call, two kernel threads inside it, one return.
//
// The stack of the caller, which is one mapping; the boot stack is its low end:
//
//   low                                                                            high
//   | boot stack        |  free    | leaving()'s frames | six registers | return | caller ...
//                       ^ boot_stack_top                ^ rbx
//
// Both kernel threads keep rbx, so the unwind information counts from there: a backtrace of either of
// them shows the caller. The new thread may move up to rbx only when the old one has left that place.
//
// This file carries the mark for indirect branch tracking but not the one for shadow stacks: the new
// kernel thread returns through frames that it never called. One unmarked object is enough to keep the
// shadow stack off for the whole program.

        .text

// long weft_adopt(const AdoptCall* call)
//
//   in         rdi = call; rsp as after any call
//   out        rax = 0 on the new kernel thread; a negative errno on the old one
//   preserves  rbx, rbp, r12 to r15, mxcsr, the x87 control word
//   clobbers   everything else
        .globl  weft_adopt
        .hidden weft_adopt
        .type   weft_adopt, @function
weft_adopt:
        .cfi_startproc
        endbr64
        pushq   %rbp
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbp, 0
        pushq   %rbx
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbx, 0
        pushq   %r12
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r12, 0
        pushq   %r13
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r13, 0
        pushq   %r14
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r14, 0
        pushq   %r15
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r15, 0
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
        js      .Lreturn
        jz      .Larrive

        movq    %r12, %rdi
        subq    $8, %rsp                // six registers and a return address: one short of alignment
        call    *%r14
        ud2                             // leaving() never returns

.Larrive:
        movq    %r12, %rdi
        call    *%r13
        movq    %rbx, %rsp              // the old thread has ended: its place on the stack is ours
        xorl    %eax, %eax

.Lreturn:
        .cfi_def_cfa_register %rsp
        popq    %r15
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r15
        popq    %r14
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r14
        popq    %r13
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r13
        popq    %r12
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r12
        popq    %rbx
        .cfi_adjust_cfa_offset -8
        .cfi_restore %rbx
        popq    %rbp
        .cfi_adjust_cfa_offset -8
        .cfi_restore %rbp
        ret
        .cfi_endproc
        .size   weft_adopt, . - weft_adopt

        .section .note.GNU-stack, "", @progbits

        .section .note.gnu.property, "a", @note
        .balign 8
        .long   4                       // length of the name
        .long   16                      // length of the properties
        .long   5                       // NT_GNU_PROPERTY_TYPE_0
        .asciz  "GNU"
        .long   0xc0000002              // GNU_PROPERTY_X86_FEATURE_1_AND
        .long   4
        .long   1                       // IBT alone; SHSTK would be 2
        .balign 8
