// The checks of libc_checks.h: compiled once, on their own, because std::regex alone takes a
// sanitizing compiler a minute.

#include "tests/support/libc_checks.h"

#include <atomic>
#include <cctype>
#include <cerrno>
#include <csetjmp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <locale>
#include <memory>
#include <random>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <dlfcn.h>
#include <netdb.h>
#include <pthread.h>

#include "tests/support/thread_identity.h"

namespace weft::test {
namespace {

const char* check_ctype() {
  const std::string text = "a1 Z_";
  int letters = 0;
  for (const char c : text) letters += std::isalpha(static_cast<unsigned char>(c)) != 0;
  return letters == 2 ? nullptr : "isalpha";
}

const char* check_numbers() {
  char text[64];
  std::snprintf(text, sizeof text, "%.3f %d %s", 2.5, -7, "x");
  if (std::strcmp(text, "2.500 -7 x") != 0) return "snprintf";
  return std::strtod("-12.25e1", nullptr) == -122.5 ? nullptr : "strtod";
}

const char* check_streams() {
  std::ostringstream out;
  out << std::boolalpha << true << ' ' << 1.5 << ' ' << std::string(40, 's').size();
  if (out.str() != "true 1.5 40") return "ostringstream";
  std::ofstream nowhere("/dev/null");
  nowhere << out.str() << std::endl;
  return nowhere.good() ? nullptr : "ofstream";
}

const char* check_locale() {
  const std::locale classic = std::locale::classic();
  if (std::toupper('q', classic) != 'Q') return "std::toupper with a locale";
  const std::locale ours(classic, new std::numpunct<char>);
  return std::use_facet<std::numpunct<char>>(ours).decimal_point() == '.' ? nullptr : "a facet";
}

const char* check_regex() {
  const std::regex pattern("([a-z]+)-([0-9]+)");
  std::smatch match;
  const std::string text = "weft-42";
  if (!std::regex_match(text, match, pattern)) return "no match";
  return match[2] == "42" ? nullptr : "the wrong group";
}

const char* check_getaddrinfo() {
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST;
  addrinfo* found = nullptr;
  if (getaddrinfo("127.0.0.1", "80", &hints, &found) != 0) return "a numeric address";
  freeaddrinfo(found);
  // A service by name goes through the plug-ins of libc, whether it is known here or not.
  found = nullptr;
  if (getaddrinfo("127.0.0.1", "http", &hints, &found) == 0) freeaddrinfo(found);
  return nullptr;
}

const char* check_dlopen() {
  void* library = dlopen(WEFT_TEST_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return "dlopen";
  const auto throws = reinterpret_cast<void (*)()>(dlsym(library, "weft_test_throw"));
  const auto call = reinterpret_cast<void (*)(void (*)())>(dlsym(library, "weft_test_call"));
  const auto count = reinterpret_cast<unsigned (*)()>(dlsym(library, "weft_test_count"));
  if (throws == nullptr || call == nullptr || count == nullptr) return "dlsym";
  int caught = 0;
  try {
    throws();
  } catch (const std::runtime_error&) {
    ++caught;
  }
  try {
    call([] { throw std::string("through the library"); });
  } catch (const std::string&) {
    ++caught;
  }
  const unsigned first = count();
  const unsigned second = count();
  if (dlclose(library) != 0) return "dlclose";
  if (second != first + 1) return "a thread_local of the library";
  return caught == 2 ? nullptr : "an exception was not caught";
}

}  // namespace

const char* check_thread_inside() {
  int ends = 0;
  std::thread inner([&ends] {
    thread_local CountsItsEnd local(&ends);
    if (local.ends != &ends) ends = -100;
  });
  inner.join();
  return ends == 1 ? nullptr : "the thread_local of an inner thread";
}

namespace {

const char* check_exceptions() {
  try {
    try {
      throw std::runtime_error("inner");
    } catch (...) {
      std::throw_with_nested(std::logic_error("outer"));
    }
  } catch (const std::logic_error& outer) {
    try {
      std::rethrow_if_nested(outer);
    } catch (const std::runtime_error&) {
      return nullptr;
    }
  }
  return "a nested exception";
}

const char* check_heap() {
  std::vector<std::shared_ptr<std::string>> kept;
  for (int i = 0; i < 500; ++i) {
    kept.push_back(std::make_shared<std::string>(std::size_t(i) * 7, 'h'));
    if (i % 3 == 0) kept[std::size_t(i) / 2].reset();
  }
  return kept.back().use_count() == 1 ? nullptr : "shared_ptr";
}

const char* check_random() {
  std::random_device device;
  unsigned bits = 0;
  for (int i = 0; i < 8; ++i) bits |= device();
  return bits != 0 ? nullptr : "std::random_device";
}

const char* check_longjmp() {
  std::jmp_buf place;
  volatile int passes = 0;
  if (setjmp(place) < 3) {
    passes = passes + 1;
    std::longjmp(place, passes);
  }
  return passes == 3 ? nullptr : "longjmp";
}

std::atomic<int> signals_handled{0};

const char* check_sigaction() {
  struct sigaction action {};
  struct sigaction before {};
  // relaxed: the handler runs on this thread.
  action.sa_handler = [](int) { signals_handled.fetch_add(1, std::memory_order_relaxed); };
  if (sigaction(SIGUSR2, &action, &before) != 0) return "sigaction";
  const int handled = signals_handled.load(std::memory_order_relaxed);
  pthread_kill(pthread_self(), SIGUSR2);
  const bool once = signals_handled.load(std::memory_order_relaxed) == handled + 1;
  sigaction(SIGUSR2, &before, nullptr);
  return once ? nullptr : "a signal to this thread was not handled";
}

const char* check_errno() {
  errno = 0;
  std::FILE* file = std::fopen("/nonexistent/file", "r");
  if (file != nullptr) return "fopen";
  return errno == ENOENT ? nullptr : "errno";
}

constexpr LibcCheck kLibcChecks[] = {
    {"ctype", check_ctype},
    {"numbers", check_numbers},
    {"streams", check_streams},
    {"locale", check_locale},
    {"regex", check_regex},
    {"getaddrinfo", check_getaddrinfo},
    {"dlopen", check_dlopen},
    {"a thread inside", check_thread_inside},
    {"exceptions", check_exceptions},
    {"heap", check_heap},
    {"the current CPU", check_current_cpu},
    {"random_device", check_random},
    {"setjmp and longjmp", check_longjmp},
    {"sigaction", check_sigaction},
    {"errno", check_errno},
};

}  // namespace

std::span<const LibcCheck> libc_checks() { return kLibcChecks; }

}  // namespace weft::test
