// The switch: how a worker's stack and its fibers' stacks take turns on one kernel thread.
//
// A worker calls weft_loop once. The loop calls weft_next, which says who runs next, moves rsp to that
// fiber's stack, restores six registers and returns into the fiber. A fiber stops by calling weft_leave,
// which saves the six, moves rsp back to the worker's stack and jumps into the middle of the loop. So
// every return instruction returns where its call came from, as the return-stack predictor expects, and
// whatever must happen after a fiber has left its stack happens in weft_next, on the worker's stack.
//
// The predictor counts calls and returns, and knows nothing of stacks. So a fiber that has not run is
// started by a jump, and ends by a jump into the loop once its functions have returned: between the two it
// called as often as it returned, and whoever runs next returns as predicted. Started by a return and left
// in the middle of its calls, it made its joiner's returns wrong as well: 22 ns of a spawn and join.
//
// Only what the psABI calls callee-saved is kept: the compiler has already saved the rest around the
// call. Not kept, on purpose: vector registers and flags (caller-saved), mxcsr and the x87 control word
// (one value for the whole process; a fiber that wants its own keeps it in C++), the fs base (it is the
// kernel thread's), errno and the C++ exception globals (kept in C++ by the caller of weft_leave).
//
// A suspended fiber, and a worker while a fiber runs, as their saved rsp points to them:
//
//        rsp + 48   return address
//        rsp + 40   rbp
//        rsp + 32   rbx
//        rsp + 24   r12
//        rsp + 16   r13
//        rsp +  8   r14
//        rsp +  0   r15           (a worker has 8 bytes of padding below)
//
// Both objects hold that rsp in their first 8 bytes; switch.h says so in C++ terms.

#include "arch/x86_64/asm.h"

        .macro  save_callee_saved
        .irp    register, rbp, rbx, r12, r13, r14, r15
        pushq   %\register
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %\register, 0
        .endr
        .endm

        .macro  restore_callee_saved
        .irp    register, r15, r14, r13, r12, rbx, rbp
#if WEFT_PLANT == 50                    // forgets r14: its place in the image is left alone
        .ifc    \register, r14
        addq    $8, %rsp
        .else
        popq    %\register
        .endif
#else
        popq    %\register
#endif
        .cfi_adjust_cfa_offset -8
        .cfi_restore %\register
        .endr
        .endm

        .text

// void weft_loop(void* worker)
//
//   in         rdi = the worker; its first 8 bytes belong to the loop
//   out        returns when weft_next(worker) has returned null
//   preserves  rbx, rbp, r12 to r15
//   clobbers   everything else
FUNCTION(weft_loop)
        endbr64                         // may be the target of an indirect call
        save_callee_saved
        subq    $8, %rsp                // align for the call below
        .cfi_adjust_cfa_offset 8
        movq    %rdi, %rbx              // the worker, for as long as the loop runs
        movq    %rsp, 0(%rdi)
.Lnext: movq    %rbx, %rdi
        call    weft_next               // rax = the fiber, dl = whether it starts
        .cfi_remember_state
        testq   %rax, %rax
        jz      .Lstop
        movq    0(%rax), %rsp           // the fiber's stack, as weft_leave or the seed left it
        .cfi_adjust_cfa_offset -8       // the same six registers, without the padding
        movq    %rbx, %rax              // weft_leave returns the worker that resumed its fiber
        testb   %dl, %dl
        jnz     .Lstart
        .cfi_remember_state
        restore_callee_saved
        retq
        .cfi_restore_state
        .cfi_def_cfa_offset 56          // said again: the assembler of clang forgets to count back to it
.Lstart:
        restore_callee_saved
        jmp     weft_entry              // takes the return address off
        .cfi_restore_state
        .cfi_def_cfa_offset 64          // said again, as above
.Lstop: addq    $8, %rsp
        .cfi_adjust_cfa_offset -8
        restore_callee_saved
        retq
END_FUNCTION(weft_loop)

// void* weft_leave(void* fiber, void* worker)
//
//   in         rdi = the running fiber, rsi = the worker that runs it
//   out        rax = the worker that resumed the fiber, when one does
//   preserves  rbx, rbp, r12 to r15
//   clobbers   everything else
FUNCTION(weft_leave)
#if WEFT_PLANT != 54
        endbr64                         // may be the target of an indirect call
#endif
        save_callee_saved
        movq    %rsp, 0(%rdi)
#if WEFT_PLANT == 55                    // as libraries do that save registers in the fiber itself
        movq    %rdi, %rsp
        .rept   8
        pause
        .endr
#endif
        movq    %rsi, %rbx              // what the loop holds there
        movq    0(%rsi), %rsp
        .cfi_adjust_cfa_offset 8        // now the loop's frame: the same six, and its padding
        jmp     .Lnext
END_FUNCTION(weft_leave)

// void weft_entry()
//
//   in         r12 = entry, r13 = its argument, rax = the worker, rsp 16-byte aligned but for the 8 bytes of
//              the address of .Lseed, which a start by return has taken off
//   out        never returns: continues the loop of the worker that entry returned
//   preserves  nothing
//   clobbers   everything
FUNCTION(weft_entry)
        .cfi_undefined %rip             // the outermost frame: unwinding ends here
        addq    $8, %rsp
.Lseed: movq    %r13, %rdi              // seed_stack points here, and unwinders look at the byte before
        movq    %rax, %rsi
#if WEFT_PLANT == 53
        subq    $8, %rsp
#endif
        call    *%r12
        movq    %rax, %rbx              // what the loop holds there
        movq    0(%rax), %rsp
        jmp     .Lnext
        .if     .Lseed - weft_entry - 4
        .error  "seed_stack counts on an instruction of 4 bytes"
        .endif
END_FUNCTION(weft_entry)

NOT_EXECUTABLE_STACK
