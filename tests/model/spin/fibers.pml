/* Fibers and the workers that run them: what the models of waits for objects share.

   A fiber is a process that moves only while a worker runs it. When it leaves, the WORKER executes the
   commit step, and the fiber may be woken, and resumed by another worker, before that step is over: this is
   what the protocol of park.h is about.

   Before it includes this file a model defines FIBERS; workers.pml has the workers.

   A step of a process is one access to something that others may change at the same time. What a lock
   protects commutes with everything that others do, so it is done together with the access beside it.

   Planted here: PLANT_PARK_OVER_REQUEST, PLANT_CANCEL_ALL. */

#define WORKERS 2

/* The claim word of a fiber (claim_word.h). Three states are two here: nobody asks anything of a free one.
   */
bit is_parked[FIBERS];
bit cancel_asked[FIBERS];    /* requests: kCancel */
bit accepts_cancel[FIBERS];  /* accepts: this wait may be cancelled */

/* Where a fiber is. */
bit is_queued[FIBERS];       /* runnable, in some queue */
bit is_running[FIBERS];
byte leaves[FIBERS];         /* it has left its stack, and its commit step has not begun */
#define kStays 0
#define kWaits 1
#define kEnds 2
#define kWaitsOtherwise 3    /* with another commit step, commit_other */
byte ended;

/* Worker::make_ready, Core::inject: once for each wait, and never while the fiber runs. */
inline make_ready(fiber) {
  d_step {
    assert(!is_queued[fiber] && !is_running[fiber] && !is_parked[fiber] && leaves[fiber] == kStays);
    is_queued[fiber] = 1
  }
}

/* ClaimWord::park: false when a request is there already that may end the wait. */
inline park(fiber, parks) {
  d_step {
    assert(!is_parked[fiber]);
    parks = !(cancel_asked[fiber] && accepts_cancel[fiber]);
#ifdef PLANT_PARK_OVER_REQUEST
    parks = 1;
#endif
    is_parked[fiber] = parks
  }
}

/* ClaimWord::claim, without the epoch: a waker finds the node only as long as the wait lasts, because the
   waiter takes it off under the lock. Who may come late compares epochs, in models of their own.
   Uses no step of its own. */
inline claim(fiber, claims) {
  assert(!(is_parked[fiber] && cancel_asked[fiber] && accepts_cancel[fiber])); /* no request was lost */
  claims = is_parked[fiber];
  is_parked[fiber] = 0
}

/* ClaimWord::request(kCancel), which takes no object's lock; `wakes` is set when the caller must make the
   fiber ready. */
inline request(fiber, wakes) {
  d_step {
    cancel_asked[fiber] = 1;
    if
#ifdef PLANT_CANCEL_ALL
    :: is_parked[fiber] -> is_parked[fiber] = 0; wakes = 1
#else
    :: is_parked[fiber] && accepts_cancel[fiber] -> is_parked[fiber] = 0; wakes = 1
#endif
    :: else
    fi
  }
}

proctype canceller(byte fiber) {
  bit wakes;
  request(fiber, wakes);
  if :: wakes -> make_ready(fiber) :: else fi  /* WakeBatch::deliver */
}

/* The fiber's side of Worker::leave: returns when the fiber is resumed. */
inline leave(fiber, how) {
  atomic { is_running[fiber] = 0; leaves[fiber] = how }
  is_running[fiber]
}

inline end_fiber(fiber) {
  atomic { is_running[fiber] = 0; leaves[fiber] = kEnds; ended++ }
}
