// Kernel threads with no library at all, and the few things such threads need: a stack, a start,
// an end, a join, a counter and a lock. raw_thread.h is the contract as C++ sees it.
//
// The idea is that of Chris Wellons' demonstration "Raw Linux Threads via System Calls": `clone`
// returns twice, in the creator on its own stack and in the new thread on the new one. When the
// new stack is seeded with the address of a function, both may leave through the same `syscall`
// and the same `ret`: the creator returns to its caller, the thread "returns" into its function.
// No branch tells them apart.
//
//                           the new stack
//       stack_top  ---> +---------------------+
//                       | thread_exit         |  where the function returns to; rsp is then
//                  - 8  +---------------------+  stack_top, which tells what to unmap
//                       | function            |  what `ret` in thread_start takes
//                  -16  +---------------------+ <--- rsp of the new thread when `clone` returns
//                       | its frames          |
//                       | ...                 |
//   stack + GUARD_BYTES +---------------------+
//                       | guard, no access    |
//       stack      ---> +---------------------+      stack_top = stack + STACK_BYTES
//
// After that `ret` rsp is stack_top - 8, just as the ABI wants it after a call.
//
// Where this differs from the demonstration, and why:
//   * No MAP_GROWSDOWN. A growing area has no fixed guard: it grows into whatever the kernel
//     placed below, and the room it needs may be given away before it grows. Ours has its size
//     from the start (pages that nobody touches cost nothing) and a guard page of its own.
//   * No CLONE_PARENT. CLONE_THREAD implies it: the parent of a thread is its process's parent.
//   * No wait4 to learn of the end: it cannot wait for a CLONE_THREAD child, which reports to
//     nobody. The kernel clears a word and wakes its futex instead (CLONE_CHILD_CLEARTID). The
//     word is in memory of whoever joins, because it has to outlive the stack.
//   * Both calls are checked, and an ended thread leaves no stack behind.
//
// What a thread inherits: every register but rax, rdi and rsp; so also mxcsr, the x87 control
// word and the base of fs, with which it shares its creator's thread-local storage (there is no
// CLONE_SETTLS).
//
// What C++ may call begins with `endbr64`, since a pointer to it may be taken. What is reached by
// `ret` needs none. A shadow stack would refuse that very `ret`, so the object is marked for IBT,
// never SHSTK.

        .set    SYS_mmap, 9
        .set    SYS_mprotect, 10
        .set    SYS_munmap, 11
        .set    SYS_rt_sigprocmask, 14
        .set    SYS_clone, 56
        .set    SYS_exit, 60
        .set    SYS_futex, 202

        .set    STACK_BYTES, 64 * 1024          // kRawStackBytes; the test compares them
        .set    GUARD_BYTES, 4096

        .set    PROT_NONE, 0
        .set    PROT_READ, 1
        .set    PROT_WRITE, 2
        .set    MAP_PRIVATE, 0x02
        .set    MAP_ANONYMOUS, 0x20
        .set    MAP_STACK, 0x20000

        .set    CLONE_VM, 0x100
        .set    CLONE_FS, 0x200
        .set    CLONE_FILES, 0x400
        .set    CLONE_SIGHAND, 0x800
        .set    CLONE_THREAD, 0x10000
        .set    CLONE_SYSVSEM, 0x40000
        .set    CLONE_PARENT_SETTID, 0x100000
        .set    CLONE_CHILD_CLEARTID, 0x200000
        .set    CLONE_IO, 0x80000000
        .set    SHARED_MEMORY, CLONE_VM | CLONE_SYSVSEM
        .set    SHARED_FILES, CLONE_FS | CLONE_FILES | CLONE_IO
        .set    ONE_PROCESS, CLONE_THREAD | CLONE_SIGHAND
        .set    JOIN_WORD, CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID
        .set    THREAD_FLAGS, SHARED_MEMORY | SHARED_FILES | ONE_PROCESS | JOIN_WORD

        .set    SIG_BLOCK, 0
        .set    SIGSET_BYTES, 8
        .set    FUTEX_WAIT, 0                   // and not FUTEX_WAIT_PRIVATE; see thread_join

        .macro  FUNCTION name
        .p2align 4
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

// long stack_create()
//
//   in         nothing
//   out        rax = the lowest address of the stack, or -errno with nothing mapped
//   preserves  rbx, rbp, rsp, r12-r15
//   clobbers   rcx, rdx, rsi, rdi, r8-r11, flags
FUNCTION weft_stack_create
        endbr64
        xorl    %edi, %edi                      // anywhere
        movl    $STACK_BYTES, %esi
        movl    $PROT_NONE, %edx                // all guard at first
        movl    $(MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK), %r10d
        movq    $-1, %r8
        xorl    %r9d, %r9d
        movl    $SYS_mmap, %eax
        syscall
        testq   %rax, %rax
        js      .Lno_stack                      // user addresses are positive

        movq    %rax, %r8                       // system calls preserve it
        leaq    GUARD_BYTES(%rax), %rdi
        movl    $(STACK_BYTES - GUARD_BYTES), %esi
        movl    $(PROT_READ | PROT_WRITE), %edx
        movl    $SYS_mprotect, %eax
        syscall
        testq   %rax, %rax
        js      .Lunusable
        movq    %r8, %rax
.Lno_stack:
        ret

.Lunusable:
        movq    %rax, %r9                       // the errno to report
        movq    %r8, %rdi
        movl    $STACK_BYTES, %esi
        movl    $SYS_munmap, %eax
        syscall
        movq    %r9, %rax
        ret
END weft_stack_create

// long stack_destroy(long stack)
//
//   in         rdi = what stack_create returned
//   out        rax = 0, or -errno
//   preserves  rbx, rbp, rsp, r12-r15
//   clobbers   rcx, rsi, r11, flags
FUNCTION weft_stack_destroy
        endbr64
        movl    $STACK_BYTES, %esi
        movl    $SYS_munmap, %eax
        syscall
        ret
END weft_stack_destroy

// long thread_start(void* stack_top, RawThreadFunction function, RawThread* thread)
//
//   in         rdi = stack_top, 16-byte aligned; rsi = function; rdx = thread
//   out        rax = the new thread's id, or -errno; in the new thread rip = function, rdi = thread
//   preserves  rbx, rbp, rsp, r12-r15
//   clobbers   rcx, rsi, rdi, r10, r11, flags
//
// It stays under fifteen instructions and without a branch; a test reads the disassembly. The new
// thread must not need what only one side can have: `rdi = thread` is set for both, and harmless
// in the caller. [join] The kernel writes the id into the word before either side comes back, and
// only if it succeeds.
FUNCTION weft_thread_start
        endbr64
        leaq    .Lfunction_returned(%rip), %rax
        movq    %rax, -8(%rdi)
        movq    %rsi, -16(%rdi)
        leaq    -16(%rdi), %rsi                 // the new thread's rsp
        movl    $THREAD_FLAGS, %edi
        movq    %rdx, %r10                      // cleared at the end; rdx itself: set at the start
        movl    $SYS_clone, %eax
        syscall
        movq    %r10, %rdi                      // the function's argument
        ret                                     // to the caller, or into the function
END weft_thread_start

// long thread_create(RawThreadFunction function, RawThread* thread)
//
//   in         rdi = function, rsi = thread
//   out        rax = the new thread's id, or -errno with the stack freed
//   preserves  rbx, rbp, rsp, r12-r15
//   clobbers   rcx, rdx, rsi, rdi, r8-r11, flags
FUNCTION weft_thread_create
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

        movq    %rdi, %rbx
        movq    %rsi, %r12
        call    weft_stack_create
        testq   %rax, %rax
        js      .Lcreated

        leaq    STACK_BYTES(%rax), %rdi
        movq    %rbx, %rsi
        movq    %r12, %rdx
        movq    %rax, %rbx                      // the stack, should it have to go
        xorl    %ebp, %ebp                      // inherited: the thread's chain of frames ends here
        call    weft_thread_start
        testq   %rax, %rax
        jns     .Lcreated

        movq    %rbx, %rdi
        movq    %rax, %rbx                      // the errno to report
        call    weft_stack_destroy
        movq    %rbx, %rax

.Lcreated:
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
END weft_thread_create

// thread_exit: where a thread's function returns to; nobody calls it
//
//   in         rsp = the top of this thread's stack
//   out        never returns; the stack is unmapped, then the join word is 0 and its futex woken
//   preserves  nothing
//   clobbers   everything
//
// From munmap on there is no stack: no push, no call, and no signal, whose frame would have
// nowhere to go; so all are blocked first. The end is `exit` and not `exit_group`: of this thread
// alone. [join] The kernel's store of 0 comes after every store of this thread, and x86 keeps
// that order.
FUNCTION weft_thread_exit
        .cfi_undefined %rip                     // the outermost frame: unwinding ends here
        nop                                     // unwinders look up return address - 1
.Lfunction_returned:
        movl    $SIG_BLOCK, %edi
        leaq    .Levery_signal(%rip), %rsi
        xorl    %edx, %edx                      // the old mask is nobody's business
        movl    $SIGSET_BYTES, %r10d
        movl    $SYS_rt_sigprocmask, %eax
        syscall

        leaq    -STACK_BYTES(%rsp), %rdi
        movl    $STACK_BYTES, %esi
        movl    $SYS_munmap, %eax
        syscall

        xorl    %edi, %edi
        movl    $SYS_exit, %eax
        syscall
        ud2                                     // not reached
END weft_thread_exit

// void thread_join(RawThread* thread)
//
//   in         rdi = thread
//   out        nothing; thread->id is 0
//   preserves  rbx, rbp, rsp, r12-r15
//   clobbers   rax, rcx, rdx, rsi, r10, r11, flags
//
// [join] Sees 0 only after the thread's last store; see thread_exit. The kernel goes to sleep
// only if the word still holds what was read, so an end in between is not missed; a signal or a
// stray wake only makes the loop look again. The wait is a shared one: the kernel's wake at a
// thread's end is, and a wait that is marked private would never meet it.
FUNCTION weft_thread_join
        endbr64
.Llook:
        movl    (%rdi), %edx
        testl   %edx, %edx
        jz      .Ljoined
        movl    $FUTEX_WAIT, %esi
        xorl    %r10d, %r10d                    // however long it takes
        movl    $SYS_futex, %eax
        syscall
        jmp     .Llook
.Ljoined:
        ret
END weft_thread_join

// uint64_t counter_add(uint64_t* counter, uint64_t amount)
//
//   in         rdi = counter, rsi = amount
//   out        rax = the counter before the addition
//   preserves  rbx, rbp, rsp, r12-r15, and all not named
//   clobbers   flags
FUNCTION weft_counter_add
        endbr64
        movq    %rsi, %rax
        lock xaddq %rax, (%rdi)
        ret
END weft_counter_add

// void spin_lock(SpinLock* lock)
//
//   in         rdi = lock
//   out        nothing; the lock is the caller's
//   preserves  rbx, rbp, rsp, r12-r15
//   clobbers   rax, rdx, flags
//
// [spin] The locked exchange acquires: no later load moves before it. A loser waits on plain
// loads, which leave the cache line shared, and tries again only when the lock looks free.
FUNCTION weft_spin_lock
        endbr64
        movl    $1, %edx
.Ltry:
        xorl    %eax, %eax
        lock cmpxchgl %edx, (%rdi)
        jnz     .Lwait
        ret
.Lwait:
        pause
        cmpl    $0, (%rdi)
        jne     .Lwait
        jmp     .Ltry
END weft_spin_lock

// void spin_unlock(SpinLock* lock)
//
//   in         rdi = lock, taken by the caller
//   out        nothing; the lock is free
//   preserves  rbx, rbp, rsp, r12-r15, and all not named
//   clobbers   nothing
//
// [spin] A plain store releases on x86: no earlier load or store moves after it. Pairs with
// spin_lock.
FUNCTION weft_spin_unlock
        endbr64
        movl    $0, (%rdi)
        ret
END weft_spin_unlock

        .section .rodata
        .p2align 3
.Levery_signal:
        .quad   -1

// Says that indirect branches may be checked here (IBT, bit 0) and says nothing of shadow stacks
// (bit 1).
        .section .note.gnu.property, "a", @note
        .p2align 3
        .long   4                               // bytes in the name
        .long   16                              // bytes in the description
        .long   5                               // NT_GNU_PROPERTY_TYPE_0
        .asciz  "GNU"
        .long   0xc0000002                      // GNU_PROPERTY_X86_FEATURE_1_AND
        .long   4                               // bytes in the property
        .long   1
        .long   0                               // padding

        .section .note.GNU-stack, "", @progbits
