/* Operations in rings: the wait of a fiber for one, and requests that hasten its end by a message to the
   ring's owner. The message is the control block, and says no more than "look at this block's claim word".

   One fiber, two workers, each with a ring: the batch, the kernel, the completions. The fiber performs
   operation 1 under level 1, leaves that level, performs operation 2 under level 2, and ends; its block is
   used again, for operation 3 under level 3. Each level may be cancelled; the kernel completes operation 1
   by itself, the others only if their level is never cancelled: a cancellation that is lost is then a
   deadlock.

     who         plays
     fiber       Worker::perform(); Level::leave(); UringDriver::prepare()      worker.cc, uring_driver.cc
     worker      park_on_operation() as commit step, receive_message(),         operation_wait.cc
                 UringDriver::withdraw(), cancel(), complete()                  uring_driver.cc
     canceller   ClaimWord::request(), WakeBatch::deliver(), Core::send_message

   A batch that is full flushes itself when an operation is prepared: then the commit step may find it in
   the kernel already. The backlog behind a full batch is a part of the batch here.

   Demanded: everybody ends; the kernel and the completions touch no operation whose frame has returned; a
   cancel hits the operation that it was meant for; no message is about a block that was freed; no operation
   is cancelled by a request of an earlier level.

   Planted: PLANT_FREE_UNDER_MESSAGE  the block is freed though a message is on its way (plant 10 of plant.h)
            PLANT_CLEAR_LATE          the queued bit is cleared in a step of its own (plant 16)
            PLANT_GO_ON               a commit step that finds a request goes on, though the kernel has the
                                      operation (plant 17)
            PLANT_WRONG_RING          a message that finds the wait in another ring is dropped (plant 18)
            PLANT_NOT_WITHDRAWN       a commit step that finds a request leaves the operation in the batch
            PLANT_EPOCH_IN_MESSAGE    the message is for the wait that the canceller saw
            PLANT_CANCEL_ASIDE        cancels are kept aside and submitted after the operations */

#define kOperation 1
#define kCancel 2
#define kData 1
#define kCancelled 2

/* The claim word. */
#define kRunnable 0
#define kParked 1
#define kFree 2
byte state, ring, epoch;
bit is_asked, is_message_queued;

byte block_use = 1;                      /* counts the uses of the block */
bit is_freed;

/* Levels: which one the fiber is in, and which will be cancelled. */
byte level;
bit level_locked, will_cancel[4], was_cancelled[4];

bit is_queued, is_running, is_ending, is_leaving, is_over;
byte on_worker;
byte current;                            /* the operation whose frame lives; 0: none */
byte result;

chan batch[2] = [3] of { byte, byte };   /* kOperation or kCancel, and of which operation */
chan completions[2] = [3] of { byte, byte };
byte in_kernel[2];
chan messages[2] = [2] of { byte, byte }; /* which use of the block it is about, and the epoch seen */
#ifdef PLANT_CANCEL_ASIDE
byte aside[2];
#endif

inline make_ready() { d_step { assert(!is_queued && !is_running && state == kRunnable); is_queued = 1 } }

/* The kernel takes the oldest entry. A cancel names an address: it hits whatever operation is there now. */
inline submit_one(at) {
  batch[at]?kind, operation;
  if
  :: kind == kOperation -> assert(operation == current && in_kernel[at] == 0); in_kernel[at] = operation
  :: kind == kCancel && in_kernel[at] != 0 ->
     assert(in_kernel[at] == operation);
     completions[at]!operation, kCancelled;
     in_kernel[at] = 0
  :: else
  fi;
  kind = 0;
  operation = 0
}

proctype kernel() {
end:
  do
  :: atomic { in_kernel[0] != 0 && (in_kernel[0] == 1 || !will_cancel[in_kernel[0]]) ->
       completions[0]!in_kernel[0], kData; in_kernel[0] = 0 }
  :: atomic { in_kernel[1] != 0 && (in_kernel[1] == 1 || !will_cancel[in_kernel[1]]) ->
       completions[1]!in_kernel[1], kData; in_kernel[1] = 0 }
  od
}

/* UringDriver::cancel */
inline cancel_operation() {
#ifdef PLANT_CANCEL_ASIDE
  aside[self] = current
#else
  batch[self]!kCancel, current
#endif
}

/* park_on_operation: park_in_ring; else withdraw; else park_in_ring_regardless, and cancel. The claim word
   changes once in each case, and the batch is this worker's own. */
inline commit_operation() {
  atomic {
    if
    :: !is_asked -> state = kParked; ring = self
    :: is_asked && batch[self]??[kOperation, eval(current)] ->
       result = kCancelled;
       goes_on = 1
#ifndef PLANT_NOT_WITHDRAWN
       ;
       batch[self]??kOperation, eval(current)
#endif
    :: is_asked && !batch[self]??[kOperation, eval(current)] ->
#ifdef PLANT_GO_ON
       result = kCancelled;
       goes_on = 1
#else
       state = kParked;
       ring = self;
       cancel_operation()
#endif
    fi
  }
  if :: goes_on -> make_ready(); goes_on = 0 :: else fi
}

/* ClaimWord::receive and receive_message; what is behind a message of the code is done here at once. */
inline receive_message() {
  assert(!is_freed && use == block_use);
#ifdef PLANT_CLEAR_LATE
  d_step {
    is_here = state == kParked && is_asked && ring == self;
    goes_on = state == kParked && is_asked && ring != self
  }
#endif
  atomic {
#ifndef PLANT_CLEAR_LATE
    is_here = state == kParked && is_asked && ring == self;
#ifndef PLANT_WRONG_RING
    goes_on = state == kParked && is_asked && ring != self;
#endif
#endif
#ifdef PLANT_EPOCH_IN_MESSAGE
    is_here = is_here && seen == epoch;
    goes_on = goes_on && seen == epoch;
#endif
    if
    :: goes_on                           /* kForward: it still counts as queued */
    :: !goes_on ->
       is_message_queued = 0;
       if
       :: is_here -> cancel_operation()
       :: !is_here && state == kFree -> is_freed = 1
       :: else
       fi
    fi;
    is_here = 0
  }
  if :: goes_on -> goes_on = 0; messages[1 - self]!use, seen :: else fi;
  atomic { use = 0; seen = 0 }
}

proctype worker(byte self) {
  byte kind, operation, use, seen;
  bit goes_on, is_here;
end:
  do
  :: atomic { is_queued -> is_queued = 0; is_running = 1; on_worker = self }
     if
     :: atomic { is_ending -> is_ending = 0 }
     :: atomic { is_leaving -> is_leaving = 0 } commit_operation()
     fi
  :: atomic { nempty(batch[self]) -> submit_one(self) }
#ifdef PLANT_CANCEL_ASIDE
  :: atomic { aside[self] != 0 && empty(batch[self]) -> batch[self]!kCancel, aside[self]; aside[self] = 0 }
#endif
  :: atomic { completions[self]?operation, kind ->  /* UringDriver::complete, ClaimWord::complete */
       assert(operation == current && state == kParked);
       result = kind;
       state = kRunnable;
       epoch++;
       operation = 0;
       kind = 0
     }
     make_ready()
  :: messages[self]?use, seen -> receive_message()
  od
}

proctype canceller(byte number) {
  byte to, use, seen;
  bit sends;
  if
  :: !will_cancel[number]
  :: else ->
     (level == number || is_over);
     atomic { !level_locked -> level_locked = 1 }
     if
     :: level == number ->
        d_step {
          was_cancelled[number] = 1;
          is_asked = 1;
          sends = state == kParked && !is_message_queued;
          if :: sends -> is_message_queued = 1; to = ring; seen = epoch; use = block_use :: else fi
        }
        if :: sends -> messages[to]!use, seen :: else fi
     :: else
     fi;
     level_locked = 0
  fi
}

/* Leaves the level that the fiber is in: the request is taken back under the level's lock. */
inline enter(next) { atomic { !level_locked -> is_asked = 0; level = next } }

inline perform(number) {
  if
  :: is_asked -> result = kCancelled
  :: else ->
     current = number;
     result = 0;
     batch[on_worker]!kOperation, number;
     if
     :: skip
     :: atomic { nempty(batch[on_worker]) -> submit_one(on_worker) }
     :: atomic { len(batch[on_worker]) == 2 -> submit_one(on_worker); submit_one(on_worker) }
     fi;
     atomic { is_running = 0; is_leaving = 1 }
     is_running;
     assert(result != 0);
     current = 0
  fi;
  assert(result != kCancelled || was_cancelled[number])
}

/* ClaimWord::free */
inline end_fiber() {
  atomic {
    is_running = 0;
    is_ending = 1;
    state = kFree;
#ifdef PLANT_FREE_UNDER_MESSAGE
    is_freed = 1
#else
    if :: !is_message_queued -> is_freed = 1 :: else fi
#endif
  }
}

proctype fiber() {
  byte kind, operation;
  is_running;
  enter(1);
  perform(1);
  enter(2);
  perform(2);
  enter(0);
  end_fiber();

  is_freed && !is_ending;
  atomic { is_freed = 0; block_use++; state = kRunnable; is_queued = 1; is_asked = 0; is_message_queued = 0 }
  is_running;
  enter(3);
  perform(3);
  enter(0);
  end_fiber();
  is_over = 1
}

init {
  if :: will_cancel[1] = 1 :: skip fi;
  if :: will_cancel[2] = 1 :: skip fi;
  if :: will_cancel[3] = 1 :: skip fi;
  atomic {
    is_queued = 1;
    run kernel();
    run worker(0);
    run worker(1);
    run fiber();
    run canceller(1);
    run canceller(2);
    run canceller(3)
  }
  is_over && is_freed
}
