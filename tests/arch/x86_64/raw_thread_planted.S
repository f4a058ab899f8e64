// What raw_thread_disassembly.py must refuse, and one function that it must not: a checker that
// never fails proves nothing. Nobody runs these.

        .macro  FUNCTION name
        .globl  \name
        .hidden \name
        .type   \name, @function
\name:
        .cfi_startproc
        .endm

        .macro  END name
        .cfi_endproc
        .size   \name, . - \name
        .endm

        .text

// Fourteen instructions in a straight line: just allowed.
FUNCTION planted_good
        .rept   12
        movl    %edi, %eax
        .endr
        syscall
        ret
END planted_good

// One too many.
FUNCTION planted_long
        .rept   13
        movl    %edi, %eax
        .endr
        syscall
        ret
END planted_long

// The usual way: the new thread branches away from its creator.
FUNCTION planted_branch
        syscall
        testq   %rax, %rax
        jz      .Lnew_thread
        ret
.Lnew_thread:
        popq    %rdi
        ret
END planted_branch

// The new thread leaves by another way than `ret`.
FUNCTION planted_jump
        syscall
        jmp     *%rsi
END planted_jump

// Hides its branch in a function.
FUNCTION planted_call
        call    planted_branch
        ret
END planted_call

// Runs on into whatever comes next.
FUNCTION planted_fall
        syscall
        ud2
END planted_fall

// Short and straight, and starts no thread.
FUNCTION planted_nothing
        ret
END planted_nothing

        .section .note.GNU-stack, "", @progbits
