// A program without any library, libc included: its own `_start`, threads and system calls.
//
// Main and eight threads print numbered lines at once, and all add to one shared counter. Every
// line is whole, every value of the counter is taken by exactly one of them, and at the end every
// thread is joined and every stack unmapped. `strace -f` on it shows the whole life of a thread.
//
// Built with -nostdlib -static: nothing here may need memcpy, thread-local storage or a global
// constructor.
#include <cstddef>
#include <cstdint>

#include <sys/syscall.h>

#include "arch/x86_64/raw_thread.h"
#include "arch/x86_64/syscall.h"

namespace {

namespace arch = weft::arch;

constexpr int kThreads = 8;
constexpr int kLinesEach = 25;

constinit arch::SpinLock output;
constinit std::uint64_t lines_printed = 0;

// A line is put together where only its thread sees it, then written in one piece.
class Line {
 public:
  Line& text(const char* from) {
    while (*from != '\0') put(*from++);
    return *this;
  }

  Line& number(std::uint64_t value) {
    char digits[20];
    int count = 0;
    do {
      digits[count++] = static_cast<char>('0' + value % 10);
      value /= 10;
    } while (value != 0);
    while (count > 0) put(digits[--count]);
    return *this;
  }

  // The kernel may take a part of what it is given, so the rest has to follow before another
  // thread's line. The lock is held over a system call, which only a program with nothing better to
  // do may do.
  void write() {
    put('\n');
    arch::spin_lock(&output);
    for (std::size_t done = 0; done < length_;) {
      long taken = arch::syscall(SYS_write, 1, text_ + done, length_ - done);
      if (taken < 0) break;  // nobody is left who could be told
      done += static_cast<std::size_t>(taken);
    }
    arch::spin_unlock(&output);
  }

 private:
  void put(char c) {
    if (length_ < sizeof text_) text_[length_++] = c;
  }

  std::size_t length_ = 0;
  char text_[100];
};

struct Printer {
  arch::RawThread thread;  // first: the thread's function is given its address
  std::uint32_t number = 0;
};

// In static memory: it must outlive the threads' stacks.
constinit Printer printers[1 + kThreads];

void print_lines(arch::RawThread* self) {
  const auto* printer = reinterpret_cast<const Printer*>(self);
  for (int i = 0; i < kLinesEach; ++i) {
    std::uint64_t counter = arch::counter_add(&lines_printed, 1) + 1;
    Line line;
    if (printer->number == 0) {
      line.text("main");
    } else {
      line.text("thread ").number(printer->number).text(" (id ").number(self->id).text(")");
    }
    line.text(": line ").number(i + 1).text(", counter ").number(counter).write();
    arch::syscall(SYS_sched_yield);  // lets the others' lines come between
  }
}

// The exit status of the process.
int run() {
  for (std::uint32_t n = 1; n <= kThreads; ++n) {
    printers[n].number = n;
    long id = arch::thread_create(print_lines, &printers[n].thread);
    if (id < 0) {
      Line line;
      line.text("no thread: errno ").number(static_cast<std::uint64_t>(-id)).write();
      return 1;
    }
  }
  print_lines(&printers[0].thread);
  for (Printer& printer : printers) arch::thread_join(&printer.thread);  // main's never started

  Line line;
  line.text("joined ").number(kThreads).text(", counter ").number(lines_printed).write();
  return lines_printed == (1 + kThreads) * kLinesEach ? 0 : 1;
}

}  // namespace

// The kernel jumps here with argc at a 16-byte aligned rsp, where a function expects a return
// address below the alignment: the attribute puts it right.
extern "C" [[noreturn]] [[gnu::force_align_arg_pointer]] void _start();
extern "C" void _start() {
  int status = run();
  while (true) arch::syscall(SYS_exit_group, status);
}
