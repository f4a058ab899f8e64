// operator new, with a counter at which an allocation fails: linked into a program, it replaces the global
// one.
//
//   test::fail_allocation(7);                 // the eighth from now on throws, or returns null
//   ...
//   const bool met = test::allocation_failed();  // and no more will fail
//
// Requires: no ThreadSanitizer, which brings its own.
#pragma once

namespace weft::test {

// The allocation number `nth`, counted from 0 over all threads, fails; it and `repeat - 1` after it.
void fail_allocation(unsigned nth, unsigned repeat = 1);
// Ends that. Whether one has failed.
bool allocation_failed();
// Allocations alive now.
long allocations_alive();

}  // namespace weft::test
