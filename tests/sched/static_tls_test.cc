// A library with thread-local data of the initial-exec kind, opened while workers run: libc writes the initial
// values into the control blocks of all threads that it knows, and it knows the workers. [I4]

#include <weft/fiber.h>
#include <weft/runtime.h>
#include <weft/scope.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include <dlfcn.h>
#include <sched.h>

#include <catch2/catch.hpp>

#include "tests/support/on_fiber.h"

using namespace weft;

namespace {

constexpr int kWorkers = 3;

struct Library {
  void* handle = dlopen(WEFT_TEST_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  int (*number)() = reinterpret_cast<int (*)()>(symbol("weft_test_number"));
  int (*zero)() = reinterpret_cast<int (*)()>(symbol("weft_test_zero"));
  void (*set)(int) = reinterpret_cast<void (*)(int)>(symbol("weft_test_set"));
  bool good() const { return number != nullptr && zero != nullptr && set != nullptr; }

 private:
  void* symbol(const char* name) const { return handle == nullptr ? nullptr : dlsym(handle, name); }
};

// Calls visit(i) once on every worker.
template <class Visit>
std::size_t on_every_worker(Runtime& runtime, Visit visit) {
  std::atomic<int> arrived{0};
  std::mutex mutex;
  std::set<long> threads;
  FiberGroup group(runtime);
  for (int i = 0; i < kWorkers; ++i) {
    group.spawn([&, i] {
      ++arrived;
      while (arrived != kWorkers) sched_yield();  // keeps its worker
      visit(i);
      const std::lock_guard hold(mutex);
      threads.insert(test::kernel_thread());
    });
  }
  CHECK(group.join().ok());
  return threads.size();
}

}  // namespace

TEST_CASE("static TLS: a library opened late is right in workers that run, and in later ones",
          "[identity][I4]") {
  auto runtime = Runtime::start({.workers = kWorkers, .handle_signals = false});
  REQUIRE(runtime.ok());
  std::atomic<bool> over{false};
  FiberGroup busy(**runtime);
  for (int i = 0; i < 2 * kWorkers; ++i) {
    busy.spawn([&] {
      while (!over) this_fiber::yield();
    });
  }
  const Library library;  // is not closed again: libc cannot give such data back
  over = true;
  CHECK(busy.join().ok());
  REQUIRE(library.good());
  const auto values = [&](Runtime& of, int value) {
    std::vector<int> seen(3 * kWorkers, -1);
    CHECK(on_every_worker(of, [&](int i) {
            const auto at = static_cast<std::size_t>(3 * i);
            seen[at] = library.number();
            seen[at + 1] = library.zero();
            library.set(value + i);
            seen[at + 2] = library.number() - i;
          }) == kWorkers);
    return seen;
  };
  CHECK(values(**runtime, 100) == std::vector<int>{42, 0, 100, 42, 0, 100, 42, 0, 100});
  CHECK((*runtime)->stop().ok());

  auto later = Runtime::start({.workers = kWorkers, .handle_signals = false});
  REQUIRE(later.ok());
  CHECK(values(**later, 200) == std::vector<int>{42, 0, 200, 42, 0, 200, 42, 0, 200});
}
