// Which sanitizers this translation unit is compiled with, asked in one way for both compilers.
//
//   if constexpr (base::kAsan) ...          where both branches compile everywhere
//   #if WEFT_ASAN                           around declarations that only exist in such a build
//
// Promises: the macros are always defined, as 0 or 1, so a misspelt one is an error under -Wundef.
#pragma once

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WEFT_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define WEFT_TSAN 1
#endif
#if __has_feature(safe_stack)
#error "weft cannot run under safe-stack: a fiber would share its unsafe stack with its thread"
#endif
#endif

#if !defined(WEFT_ASAN) && defined(__SANITIZE_ADDRESS__)
#define WEFT_ASAN 1
#endif
#if !defined(WEFT_TSAN) && defined(__SANITIZE_THREAD__)
#define WEFT_TSAN 1
#endif

#ifndef WEFT_ASAN
#define WEFT_ASAN 0
#endif
#ifndef WEFT_TSAN
#define WEFT_TSAN 0
#endif

namespace weft::base {

inline constexpr bool kAsan = WEFT_ASAN == 1;
inline constexpr bool kTsan = WEFT_TSAN == 1;

}  // namespace weft::base
