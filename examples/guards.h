// Guards: looking for the one below the calling fiber's stack, and stepping onto it.
//
//   if (!is_guarded()) ...                         // on a fiber
//   if (!touching_a_guard_is_reported()) ...       // in a process without a runtime
#pragma once

#include <weft/runtime.h>
#include <weft/scope.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <string>

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

namespace examples {

// The guard ends where the stack's lowest page begins. Call from: a fiber.
[[gnu::noinline]] inline volatile char* last_byte_of_guard() {
  constexpr std::uintptr_t kPageBytes = 4096;
  const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  const std::uintptr_t lowest = here - weft::this_fiber::stack_remaining();
  return reinterpret_cast<volatile char*>(lowest / kPageBytes * kPageBytes - 1);
}

// Asks the kernel to read a path from there, which costs less than a fault. Call from: a fiber.
inline bool is_guarded() {
  return access(const_cast<const char*>(last_byte_of_guard()), F_OK) == -1 && errno == EFAULT;
}

// Runs body() in a child, with stderr going to `errors_fd`, and returns its wait status.
// Requires: no runtime was started in this process.
template <class Body>
int in_child(int errors_fd, Body body) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    dup2(errors_fd, STDERR_FILENO);
    const int code = body();
    std::fflush(stdout);
    _exit(code);
  }
  int status = -1;
  return waitpid(child, &status, 0) == child ? status : -1;
}

// Whether a process dies of the touch, and says before on whose stack it was.
inline bool touching_a_guard_is_reported() {
  std::FILE* errors = std::tmpfile();
  const int status = in_child(fileno(errors), [] {
    signal(SIGSEGV, SIG_DFL);
    const rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    return weft::run([] {
      weft::Scope scope;
      scope.spawn([] { *last_byte_of_guard() = 1; }, {.name = "trespasser"});
      return scope.join();
    });
  });
  std::string text(4096, '\0');
  std::rewind(errors);
  text.resize(std::fread(text.data(), 1, text.size(), errors));
  std::fclose(errors);
  std::printf("a touch of a guard: %s", text.substr(0, text.find('\n') + 1).c_str());
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV &&
         text.find("stack overflow in fiber") != text.npos &&
         text.find("\"trespasser\"") != text.npos;
}

}  // namespace examples
