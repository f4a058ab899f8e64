/* The workers: each takes any fiber that is queued, and finishes what it began by leaving.

   Before it includes this file a model defines commit_wait(fiber, parks), the commit step of a wait, which
   is the function of that name in park.cc; commit_other with COMMIT_OTHER if its fibers leave in yet
   another way; and commit_end with COMMIT_END if their end concerns others. WORKER_LOCALS are variables
   that these need. Which queue a fiber is in is of no matter here: any of them may come next. */

#define TAKE(fiber, into) \
  atomic { is_queued[fiber] -> is_queued[fiber] = 0; is_running[fiber] = 1; into = fiber }

/* Worker::next */
proctype worker() {
  byte fiber;
  bit parks;
#ifdef WORKER_LOCALS
  WORKER_LOCALS
#endif
end:
  do
  :: if
     :: TAKE(0, fiber)
#if FIBERS > 1
     :: TAKE(1, fiber)
#endif
#if FIBERS > 2
     :: TAKE(2, fiber)
#endif
     fi;
     if
     :: atomic { leaves[fiber] == kEnds -> leaves[fiber] = kStays }
#ifdef COMMIT_END
        commit_end(fiber)
#endif
     :: atomic { leaves[fiber] == kWaits -> leaves[fiber] = kStays }
        commit_wait(fiber, parks)
#ifdef COMMIT_OTHER
     :: atomic { leaves[fiber] == kWaitsOtherwise -> leaves[fiber] = kStays }
        commit_other(fiber, parks)
#endif
     fi;
     atomic { fiber = 0; parks = 0 }
  od
}

inline start_fiber(fiber) { is_queued[fiber] = 1 }
inline start_workers() { run worker(); run worker() }
