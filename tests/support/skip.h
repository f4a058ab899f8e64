// Skipping: how a test says that something cannot be tried here, and why.
//
//   if (geteuid() != 0) return weft::test::skip_case("needs root");      // this TEST_CASE only
//   if (!kernel_has_guards()) weft::test::skip("the kernel has no MADV_GUARD_INSTALL");
//
// Both print a line "skipped: REASON", which tools/dev test shows. A program of which every case was
// skipped exits 77, which meson counts as skipped; one that fails an assertion fails, whatever it skips.
//
// Requires: called by the thread that runs the test case.
#pragma once

namespace weft::test {

// Notes the reason; the caller returns from its test case.
void skip_case(const char* reason);

// Ends the whole program: 77, or 1 when an assertion has failed before.
[[noreturn]] void skip(const char* reason);

}  // namespace weft::test
