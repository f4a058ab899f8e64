// For tls_lint_test.py: functions that keep something of the thread over a switch, which the lint must
// find, and the same done rightly, which it must leave alone. Compiled, never linked.
#include <cerrno>

#include <cxxabi.h>

namespace weft::sched {
class Worker;
Worker* current_worker();
}  // namespace weft::sched

extern "C" {
void* weft_leave(void* fiber, void* worker);
void use(void* pointer);
void use_number(int number);
[[gnu::cold]] void use_rarely(void* pointer);
}

using weft::sched::current_worker;

extern thread_local int counter;
thread_local int own_counter;

// One call more between the function and the switch.
[[gnu::noinline]] void park() {
  weft_leave(nullptr, current_worker());
  asm volatile("");
}

// ---- Kept over a switch by the programmer

void bad_worker() {
  void* worker = current_worker();
  use(worker);
  park();
  use(worker);
}

void bad_worker_in_a_loop(int turns) {
  void* worker = current_worker();
  for (int i = 0; i < turns; ++i) {
    use(worker);
    if (i % 3 == 0) park();
  }
}

void bad_address() {
  int* address = &own_counter;
  asm volatile("" : "+r"(address));  // or it is computed anew for each use
  park();
  *address += 1;
}

void bad_globals() {
  void* globals = abi::__cxa_get_globals();
  use(globals);
  weft_leave(nullptr, nullptr);
  use(globals);
}

void bad_in_a_handler() {
  void* worker = current_worker();
  try {
    park();
    use(worker);
  } catch (...) {
    use(worker);
  }
}

// The compiler moves what follows a rare condition to a section of its own.
void bad_in_the_cold_part(int rare) {
  void* worker = current_worker();
  use(worker);
  park();
  if (rare != 0) use_rarely(worker);
  use_number(rare);
}

void bad_after_the_cold_part(int rare) {
  void* worker = current_worker();
  use(worker);
  if (rare != 0) {
    use_rarely(nullptr);
    park();
  }
  use(worker);
}

// More values than there are registers: some lie in the frame.
void bad_in_the_frame() {
  void* worker = current_worker();
  use(worker);
  int numbers[12];
  use(numbers);
  int sum = numbers[0] * numbers[1];
  const int a = numbers[2], b = numbers[3], c = numbers[4], d = numbers[5], e = numbers[6];
  park();
  use_number(a + sum);
  use_number(b + sum);
  use_number(c + sum);
  use_number(d * e);
  use_number(a * b * c * d * e);
  use(worker);
}

// ---- Kept by the compiler alone, if it optimises

int kept_errno() {
  errno = 0;
  park();
  return errno;
}

void kept_address() {
  counter += 1;
  use(&counter);
  park();
  counter += 1;
  use(&counter);
}

// ---- Done rightly

void good_worker() {
  use(current_worker());
  park();
  use(current_worker());
}

void good_in_the_cold_part(int rare) {
  use(current_worker());
  park();
  if (rare != 0) use_rarely(current_worker());
  use_number(rare);
}

void good_before_the_switch(int turns) {
  for (int i = 0; i < turns; ++i) {
    void* worker = current_worker();
    use(worker);
    use(worker);
    park();
  }
}

[[gnu::noinline]] static int read_errno() {
  asm volatile("");
  return errno;
}

void good_errno() {
  const int error = read_errno();
  park();
  use_number(error);  // the value is the fiber's own
  use_number(read_errno());
}

void good_protected_frame() {
  char text[64];
  use(text);
  park();
  use(text);
}
