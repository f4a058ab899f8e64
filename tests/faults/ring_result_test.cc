// What the kernel may answer to each kind of operation, once, at each operation in turn: passing errors are
// gone through again, others reach the caller, and the rest of the service goes on.
#include <cerrno>
#include <cstring>

#include <catch2/catch.hpp>

#include "runtime/os/ring.h"
#include "tests/faults/trial.h"
#include "tests/support/skip.h"

namespace weft {
namespace {

using os::system::Call;

// Whether a no-op brings the result that it is told: the seam makes the errors of operations of it.
bool kernel_injects_results() {
  os::Ring ring;
  if (ring.open({}) != 0) return false;
  io_uring_sqe* sqe = ring.next_sqe();
  io_uring_prep_nop(sqe);
  sqe->rw_flags = 1;
  sqe->len = static_cast<unsigned>(-EIO);
  ring.enter(os::Ring::Wait::kYes, os::Ring::kNever, 0);
  const io_uring_cqe* completion = ring.peek();
  return completion != nullptr && completion->res == -EIO;
}

struct Operation {
  const char* name;
  Call call;
  std::vector<int> passing;  // what the library goes through again by itself
};

const Operation kOperations[] = {
    {"accept", Call::kRingAccept, {EINTR, EAGAIN, ECANCELED}},
    {"connect", Call::kRingConnect, {EINTR, ECANCELED}},
    {"receive", Call::kRingReceive, {EINTR, EAGAIN, ECANCELED}},
    {"send", Call::kRingSend, {EINTR, EAGAIN, ECANCELED}},
    {"doorbell",
     Call::kRingPoll,
     {EINTR, EAGAIN, ENOMEM, ENOBUFS, ECONNRESET, EIO, EBADF, ECANCELED}},
};
constexpr int kErrors[] = {EINTR, EAGAIN, ENOMEM, ENOBUFS, ECONNRESET, EIO, EBADF, ECANCELED};

bool passes(const Operation& operation, int error) {
  return std::find(operation.passing.begin(), operation.passing.end(), error) !=
         operation.passing.end();
}

TEST_CASE("ring result: an error of any operation is gone through, or reaches its caller",
          "[faults][F10]") {
  if (!kernel_injects_results()) return test::skip_case("no-ops carry no result before Linux 6.10");
  test::Trying trying;
  for (const Operation& operation : kOperations) {
    for (const int error : kErrors) {
      const test::Fault fault{operation.name, operation.call, error};
      for (unsigned nth = 0;; ++nth) {
        trying.now(fault, nth);
        const test::Tried tried = test::try_with(fault, nth);
        INFO(trying.text() << "\n" << tried.outcome.text());
        if (!tried.met || passes(operation, error)) {
          CHECK(tried.outcome.whole());
        } else {
          CHECK(test::explains(tried.outcome, error));
        }
        CHECK(tried.threads <= 0);
        CHECK(tried.descriptors == 0);
        if (!tried.met) {
          CHECK(nth > 0);
          break;
        }
      }
    }
  }
}

}  // namespace
}  // namespace weft
