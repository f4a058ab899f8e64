// Checks that end the process: for programming errors that would corrupt memory, never for input, load
// or environment.
//
//   WEFT_CHECK(group->runtime == runtime, "a fiber joined a group of another runtime");
//   WEFT_DCHECK(state == kParked, "woken while it runs");
//
// WEFT_CHECK is always on; WEFT_DCHECK only without NDEBUG.
#pragma once

namespace weft::base {

// Prints "weft: FILE:LINE: MESSAGE (CONDITION)" to stderr with one write and aborts. Uses no heap.
// Call from: any thread, also a fiber; never returns.
[[noreturn]] void check_failed(const char* file, int line, const char* condition,
                               const char* message);

}  // namespace weft::base

#define WEFT_CHECK(condition, message)                                       \
  (__builtin_expect(!(condition), 0)                                         \
       ? ::weft::base::check_failed(__FILE__, __LINE__, #condition, message) \
       : void(0))

#ifdef NDEBUG
#define WEFT_DCHECK(condition, message) ((void)sizeof((condition) ? 1 : 0))
#else
#define WEFT_DCHECK(condition, message) WEFT_CHECK(condition, message)
#endif
