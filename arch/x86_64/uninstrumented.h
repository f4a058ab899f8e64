// WEFT_UNINSTRUMENTED marks a function into which no compiler may put calls or state of its own.
//
//   WEFT_UNINSTRUMENTED void leaving(void* argument) { ... }
//
// Needed where the ground under instrumentation moves: while two kernel threads share one TLS, or
// where a stack is left for another. Sanitizers keep their per-thread state in the TLS, and the
// stack protector compares a value that it read on entry.
//
// Requires: such a function calls only its own kind, functions that are always inlined, or
// assembly. It reads atomics through __atomic builtins: the members of std::atomic may be
// instrumented functions.
#pragma once

#if defined(__clang__)
#define WEFT_UNINSTRUMENTED                                                       \
  __attribute__((noinline, disable_sanitizer_instrumentation, no_stack_protector, \
                 no_sanitize("address", "thread", "undefined")))
#else
#define WEFT_UNINSTRUMENTED \
  __attribute__((noinline, no_stack_protector, no_sanitize("address", "thread", "undefined")))
#endif
