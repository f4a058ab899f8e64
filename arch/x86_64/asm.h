// What every assembly file here needs: functions with full call frame information, hidden from other
// objects of the final program, and the notes that say what the object promises to the linker.
//
//   FUNCTION(weft_loop)
//           ...
//   END_FUNCTION(weft_loop)
//
// The object claims IBT (every indirect target starts with endbr64) and never SHSTK: fibers and adopted
// threads return through frames that the current shadow stack has not seen.
#pragma once

// The assembler's layout, not that of C++.
// clang-format off

#define FUNCTION(name)     \
        .p2align 4;        \
        .globl  name;      \
        .hidden name;      \
        .type   name, @function; \
name:                      \
        .cfi_startproc

#define END_FUNCTION(name) \
        .cfi_endproc;      \
        .size   name, .-name

#define NOT_EXECUTABLE_STACK                       \
        .section .note.gnu.property, "a";          \
        .p2align 3;                                \
        .long   4, 16, 5;                          \
        .asciz  "GNU";                             \
        .long   0xc0000002, 4, 1, 0;               \
        .section .note.GNU-stack, "", @progbits
