#include "runtime/sched/operation_wait.h"

#include <cerrno>

#include "runtime/base/plant.h"

namespace weft::sched {

bool park_on_operation(Operation& operation, FiberBlock& fiber, IoDriver& driver, unsigned ring) {
  const unsigned accepts = operation.accepts;
  if (fiber.claim.park_in_ring(accepts, ring)) return true;
  // Something was asked in the meantime. The operation waits in the batch, or, if that was full, is in
  // the kernel already: then the stack that it names must stay until it has completed.
  if (driver.withdraw(operation) || base::planted(17)) {
    operation.result = -ECANCELED;
    return false;
  }
  if (fiber.claim.park_in_ring_regardless(accepts, ring)) driver.cancel(operation);
  return true;
}

ClaimWord::Received receive_message(FiberBlock& fiber, IoDriver& driver, unsigned ring) {
  const ClaimWord::Received received = fiber.claim.receive(ring);
  if (received.message == ClaimWord::Message::kCancel) driver.cancel(*fiber.frame->operation);
  return received;
}

}  // namespace weft::sched
