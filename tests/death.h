// What a piece of code does to its process, observed from outside.
//
//   CHECK(death_of([&] { *guard = 1; }).signal == SIGSEGV);
//   const Death death = death_of([&] { overflow(); });    // death.errors: what it wrote to stderr
//
// Requires: the test runs no threads when it forks.
#pragma once

#include <csignal>
#include <string>

#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

namespace weft::test {

struct Death {
  int signal = 0;  // 0: it ended by itself, with `status`
  int status = 0;
  std::string errors;
};

// Runs `body` in a forked child, with the default actions for faults and without a core file; the child
// ends with status 0 after it.
template <class Body>
Death death_of(Body body) {
  Death death;
  int ends[2];
  if (pipe(ends) != 0) return death;
  const pid_t child = fork();
  if (child == 0) {
    const rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    std::signal(SIGSEGV, SIG_DFL);
    std::signal(SIGBUS, SIG_DFL);
    std::signal(SIGABRT, SIG_DFL);
    dup2(ends[1], STDERR_FILENO);
    body();
    _exit(0);
  }
  close(ends[1]);
  char text[4096];
  for (ssize_t n; (n = read(ends[0], text, sizeof text)) > 0;) {
    death.errors.append(text, static_cast<std::size_t>(n));
  }
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  death.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  death.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return death;
}

// True when touching `address` ends the process by SIGSEGV.
inline bool faults(const void* address) {
  return death_of([address] {
           *static_cast<volatile char*>(const_cast<void*>(address)) = 1;
         }).signal == SIGSEGV;
}

// True when not even the kernel can read `address`: quicker than faults(), for many addresses.
inline bool is_unreadable(const void* address) {
  char byte = 0;
  const iovec to = {&byte, 1};
  const iovec from = {const_cast<void*>(address), 1};
  return process_vm_readv(getpid(), &to, 1, &from, 1, 0) < 0;
}

}  // namespace weft::test
