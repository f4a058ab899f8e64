// Which sanitizer this test is built with: for the few facts that one of them changes.
#pragma once

namespace weft::test {

#if defined(__has_feature)
#define WEFT_TEST_HAS(feature) __has_feature(feature)
#else
#define WEFT_TEST_HAS(feature) 0
#endif

#if defined(__SANITIZE_ADDRESS__) || WEFT_TEST_HAS(address_sanitizer)
inline constexpr bool kAddressSanitizer = true;
#else
inline constexpr bool kAddressSanitizer = false;
#endif

#if defined(__SANITIZE_THREAD__) || WEFT_TEST_HAS(thread_sanitizer)
inline constexpr bool kThreadSanitizer = true;
#else
inline constexpr bool kThreadSanitizer = false;
#endif

#undef WEFT_TEST_HAS

}  // namespace weft::test
