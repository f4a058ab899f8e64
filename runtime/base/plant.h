// Planted bugs: proof that a checker finds what it is there to find.
//
//   tail_.store(t + 1, planted(3) ? std::memory_order_relaxed : std::memory_order_release);
//
// A build with -DWEFT_PLANT=n has bug n in it, and the test that guards against it must fail.
// Without the macro nothing is planted and every branch on planted() folds away.
//
//   n  where                  what is wrong                                       guarded by
//   1  SpawnDeque::pop        announces by a store: no RMW before it looks        [take]
//   2  SpawnDeque::steal      looks with acquire loads, not seq_cst               [take]
//   3  SpawnDeque::push       publishes the slot with a relaxed store             [slot]
//   4  ReadyQueue::pop        moves the head by a store instead of a CAS          [claim]
//   5  ReadyQueue::steal      claims as if the head had one bit: truncated, ABA   [claim]
//   6  SlotArray::grow        wraps the copied elements at the old capacity       [grow]
//   7  ReadyQueue::steal      takes a half and two: beyond the tail               [slot]
//   8  SlotArray::grow        publishes the new array with a relaxed store        [grow]
//   9  Inbox::push            replaces the head by a store instead of a CAS       [message]
//  10  ClaimWord::free        frees a block while a message is on its way         [claim]
//  11  ClaimWord::park        does not look for a request before it parks         [claim]
//  12  ClaimWord::claim       does not compare the epoch of the wait              [claim]
//  13  ClaimWord::withdraw    takes the request back by a load and a store        [claim]
//  14  ObjectPark::finish     gives the lock back before the fiber is parked      [park]
//  15  wait                   parks before the fiber has left its stack           [park]
//  16  ClaimWord::receive     clears the queued bit in a second step              [claim]
//  17  park_on_operation      goes on though the kernel has the operation         [claim]
//  18  ClaimWord::receive     drops a message that comes to the wrong ring        [claim]
//  19  refresh_cancel         does not look at the outer levels again             [level]
//  20  Group::leave_tree      leaves the level while the scope can be raised      [level]
//  21  Idle::sleep            does not look again after it announced              [sleep]
//  22  Idle::sleep            looks again, but not for the stop flag              [sleep]
//  23  Idle::watch_if_needed  nobody becomes the watcher on the way to sleep      [watch]
//  24  Idle::begin_running    the watcher leaves its post to nobody               [watch]
//  25  Idle::claim_sleeper    claims by a store: one sleeper for two wakers       [sleep]
//  26  Idle::watched          goes by the count alone: spins while it is wrong    [watch]
//  27  finish_fiber           says done before the group has counted the fiber    [life]
//  28  drop_handle            does not look under the lock whether all is done    [life]
//  29  ClaimWord::resumed     does not move the epoch on: a late waker hits       [claim]
//  30  ClaimWord::request     sends a second message while one is on its way      [claim]
//  31  BlockCache::release    links no block to those that lie there: loses them  [remote]
//  32  StackPool::shed        offers stacks again whose pages are yet to go       [trim]
//  33  Timers::fire_due       fires outside of the lock: a disarmed timer, too    [timer]
//  34  Timers::fire_due       does not say what is earliest now                   [timer]
//  40  take_next_slot         the fiber just woken goes first for ever            [turn]
//  41  Worker::rescue         leaves a stuck worker its next-slot                 [slot]
//  42  Core::inject           rings nobody                                        [sleep]
//  43  ReadyQueue::push       loses the fiber that makes the queue grow           [grow]
//  44  Timers::fire_due       fires twice                                         [timer]
//  45  StackCache::acquire    gives the same stack out again and again            [stack]
//  46  Timer::disarm          leaves the timer armed                              [timer]
//  47  Idle::claim_sleeper    wakes all who sleep, not one                        [sleep]
//  48  commit_yield           every eighth fiber goes on at once                  [turn]
//  49  ~UringDriver           leaves the doorbell open                            [end]
//  50  switch.S               forgets a callee-saved register                     [A1]
//  51  Worker::leave          does not bring back a fiber's own mxcsr and x87     [A2]
//  52  Worker::leave          leaves the exception globals to the next fiber      [H3]
//  53  weft_entry             calls the fiber with a stack that is 8 bytes off    [A4]
//  54  weft_leave             does not begin with endbr64                         [A9]
//  55  weft_leave             has rsp in the fiber's block for a moment           [A5]
//  56  Worker::leave          goes on with the worker from before the switch      [H2]
//  57  Worker::leave          leaves errno to the next fiber                      [H1]
//  58  check.cc               exports a name that is not ours                     [N8]
//  60  Worker::main           no stack for signal handlers                        [identity_test]
//  61  StackArena             a trimmed stack loses its guard                     [stack_trim_test]
//  62  StackPool::make        tries again without giving idle memory back         [stack_shortage_test]
//  63  adoption               libc keeps the id of the old kernel thread          [kernel_thread_test]
//  64  adoption               rseq is not registered for the new kernel thread    [kernel_thread_test]
//  65  adoption               leaves the signals blocked                          [kernel_thread_test]
//  66  after_fork_in_child    leaves the child a worker                           [fork_test]
//  67  Ring::open             a forked child shares the ring's memory             [fork_test]
//  68  Core::~Core            does not wait for its visitors                      [teardown_test]
//  69  StackArena::take       hands a cold slot out twice                         [stack_pool_test]
//  70  UringDriver::open      keeps the doorbell when there is no ring            [K1]
//  71  Stream::write_all      sends the last byte of a partial write again        [F9]
//  72  was_cut_short          takes EINTR for the end of a connection             [F10]
//  73  Listening::arrived     does not arm a failed accept again                  [F10]
//  74  Ring::work_waiting     does not see that the completion queue overflowed   [F5]
//  75  UringDriver::complete  makes an end of data of every error                 [F10]
//  76  run_closure            dies of an exception that it has no memory to keep  [K2]
//  77  ~Connection            keeps the place of a connection that never ran      [K1]
//  78  wait_for_events        takes an interrupted poll for a signal to end       [K4]
//  79  UringDriver::prepare   overtakes what waits for room in the queue          [F6]
#pragma once

namespace weft::base {

#ifdef WEFT_PLANT
inline constexpr int kPlant = WEFT_PLANT;
#else
inline constexpr int kPlant = 0;
#endif

constexpr bool planted(int number) { return kPlant == number; }

}  // namespace weft::base
