// A library to be opened by libc_checks.h: it throws, it is thrown through, and it has a thread_local
// that needs construction.

#include <stdexcept>
#include <string>

namespace {
thread_local std::string calls = "calls:";
}

extern "C" {

[[gnu::visibility("default")]] void weft_test_throw() {
  throw std::runtime_error("from the library");
}

[[gnu::visibility("default")]] void weft_test_call(void (*function)()) {
  const std::string in_the_way(100, 'x');  // its destructor must run
  function();
}

// How often this thread has called it.
[[gnu::visibility("default")]] unsigned weft_test_count() {
  calls += 'x';
  return static_cast<unsigned>(calls.size() - sizeof "calls:" + 1);
}

}  // extern "C"
