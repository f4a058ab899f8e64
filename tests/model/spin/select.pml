/* select: as it will be built on wait(); there is none in the code yet. Two selects over the same two
   channels, in opposite orders, meet two senders, a cancellation, and one another.

   A select locks its objects in the order of their addresses (one named twice once), links a node in each,
   and parks; the commit step gives all locks back. The first sender that claims the fiber hands its thing
   over with the claim. When it resumes it takes all its nodes off, and only then cancels and awaits what
   else it began: fiber 0 waits for the end of an operation that lost. -DSAME: each select names one object
   twice.

   A node carries the epoch of its wait: a sender that finds a node of a wait which is over, while the fiber
   already waits for something else, must miss. -DAWAIT_FIRST awaits the operation before the nodes are off,
   which only the epoch makes harmless.

   Two selects as senders of one another (a select with a send case, that finds a select with a receive
   case) are two wakers here: whoever is first at both locks claims the other by its claim word, holding
   them all, and is not parked itself. -DMEET: fiber 1's select is such a one: it looks under the locks
   whether fiber 0 waits in one of the channels, claims it and hands over; else it parks, and fiber 0's
   select does the same to it.

   Demanded: everybody returns; each thing is taken once, by a select that reports it, or stays in its
   channel; a select that reports nothing was cancelled; -DMEET: both report the meeting, or neither.

   Planted: PLANT_CASE_ORDER       locks in the order of the cases
            PLANT_ONE_BY_ONE       the commit step unlocks the first object before it parks
            PLANT_READS_STACK      the commit step goes through the list on the stack of the fiber (-DSAME)
            PLANT_LOCK_TWICE       locks an object that is named twice twice (-DSAME)
            PLANT_NO_HAND_OVER     a claim without the thing: the fiber takes what it finds
            PLANT_NO_EPOCH         a claim looks at the state alone (-DAWAIT_FIRST) */

#define FIBERS 2
#define OBJECTS 2
#include "fibers.pml"

bit locked[OBJECTS];
byte things[OBJECTS];                    /* in the channel, for whoever comes */
bit linked[4];                           /* object * FIBERS + fiber */
#define node(object, fiber) linked[object * FIBERS + fiber]
byte epoch[FIBERS], node_epoch[FIBERS];
bit frame_lives[FIBERS];
byte received[FIBERS];                   /* from which object */
#define kNothing 9
byte taken[OBJECTS];
byte sent;
bit operation_waits[FIBERS], operation_ended[FIBERS];

inline lock(object) { atomic { !locked[object] -> locked[object] = 1 } }
inline unlock(object) { d_step { assert(locked[object]); locked[object] = 0 } }

/* ClaimWord::claim, with the epoch. */
inline claim_wait(fiber, claims) {
#ifdef PLANT_NO_EPOCH
  claims = is_parked[fiber];
#else
  claims = is_parked[fiber] && epoch[fiber] == node_epoch[fiber];
#endif
  if :: claims -> is_parked[fiber] = 0; epoch[fiber]++ :: else fi
}

inline commit_wait(fiber, parks) {
#ifdef PLANT_ONE_BY_ONE
  if :: node(0, fiber) -> unlock(0) :: else fi;
#endif
  d_step { assert(frame_lives[fiber]); holds[0] = node(0, fiber); holds[1] = node(1, fiber) }
  park(fiber, parks);
#ifdef PLANT_READS_STACK
  assert(frame_lives[fiber]); if :: node(0, fiber) -> unlock(0) :: else fi;
  assert(frame_lives[fiber]); if :: node(1, fiber) -> unlock(1) :: else fi;
#else
#ifndef PLANT_ONE_BY_ONE
  if :: holds[0] -> unlock(0) :: else fi;
#endif
  if :: holds[1] -> unlock(1) :: else fi;
#endif
  if :: !parks -> make_ready(fiber) :: else fi;
  d_step { holds[0] = 0; holds[1] = 0 }
}

/* The wait for an operation: the claim word alone. */
#define COMMIT_OTHER
inline commit_other(fiber, parks) {
  d_step { is_parked[fiber] = 1; operation_waits[fiber] = 1 }
}
#define WORKER_LOCALS bit holds[OBJECTS];
#include "workers.pml"

inline await_operation(self) {
  if
  :: self == 0 ->
     accepts_cancel[self] = 0;           /* its end must be awaited */
     leave(self, kWaitsOtherwise);
     assert(operation_ended[self])
  :: else
  fi
}

/* A waiter of this object, other than ourselves, that can be claimed. */
#ifdef MEET
inline meet(self, object) {
  d_step {
    if
    :: received[self] == kNothing && node(object, 1 - self) ->
       assert(frame_lives[1 - self]);
       claim_wait(1 - self, claims);
       if
       :: claims -> node(object, 1 - self) = 0; received[1 - self] = object; received[self] = object
       :: else
       fi;
       wakes_other = wakes_other || claims;
       claims = 0
    :: else
    fi
  }
}
#endif

inline take(object) {
  if
  :: received[self] == kNothing && things[object] > 0 -> things[object]--; received[self] = object
  :: else
  fi
}

inline unlock_all(first, second) {
  unlock(first);
  if :: first != second -> unlock(second) :: else fi
}

proctype selecting(byte self; byte first; byte second) {
  bit claims, wakes_other;
  is_running[self];
  received[self] = kNothing;
#ifdef PLANT_CASE_ORDER
  lock(first);
  if :: first != second -> lock(second) :: else fi;
#else
  if
  :: first < second -> lock(first); lock(second)
  :: first > second -> lock(second); lock(first)
  :: first == second ->
     lock(first);
#ifdef PLANT_LOCK_TWICE
     lock(second)
#endif
  fi;
#endif
#ifdef MEET
  meet(self, first);
  meet(self, second);
#endif
  d_step { take(first); take(second) }
  if
  :: received[self] != kNothing ->
     unlock_all(first, second);
     if :: wakes_other -> make_ready(1 - self) :: else fi
  :: else ->
     d_step {
       frame_lives[self] = 1;
       node(first, self) = 1;
       node(second, self) = 1;
       node_epoch[self] = epoch[self];
       accepts_cancel[self] = 1
     }
     leave(self, kWaits);
#ifdef AWAIT_FIRST
     await_operation(self);
#endif
     atomic { !locked[0] -> node(0, self) = 0 }
     atomic { !locked[1] -> node(1, self) = 0 }
     frame_lives[self] = 0;
#ifndef AWAIT_FIRST
     await_operation(self);
#endif
#ifdef PLANT_NO_HAND_OVER
     atomic { !locked[0] -> take(0) }
     atomic { !locked[1] -> take(1) }
#endif
  fi;
  if
  :: received[self] == kNothing -> assert(cancel_asked[self])
  :: else -> taken[received[self]]++
  fi;
  end_fiber(self)
}

/* Sends one thing. */
proctype sender(byte object) {
  byte fiber, who = kNothing;
  bit claims;
  lock(object);
  do
  :: d_step { fiber < FIBERS && who == kNothing ->
       if
       :: node(object, fiber) ->
          assert(frame_lives[fiber]);
          claim_wait(fiber, claims);
          if :: claims -> who = fiber :: else fi;
          claims = 0
       :: else
       fi;
       fiber++
     }
  :: else -> break
  od;
  if
  :: who == kNothing -> things[object]++
  :: else ->
#ifdef PLANT_NO_HAND_OVER
     things[object]++;
#else
     received[who] = object;             /* the thing goes with the claim */
#endif
     node(object, who) = 0
  fi;
  unlock(object);
  if :: who != kNothing -> make_ready(who) :: else fi;
  sent++
}

/* Completes fiber 0's operation when it waits for it: ClaimWord::complete. */
proctype reaper() {
end:
  atomic { operation_waits[0] && is_parked[0] ->
    operation_waits[0] = 0;
    operation_ended[0] = 1;
    is_parked[0] = 0;
    epoch[0]++
  }
  make_ready(0)
}

/* ClaimWord::request: a wait that it ends has had its epoch. */
proctype select_canceller(byte fiber) {
  bit wakes;
  d_step {
    cancel_asked[fiber] = 1;
    if
    :: is_parked[fiber] && accepts_cancel[fiber] -> is_parked[fiber] = 0; epoch[fiber]++; wakes = 1
    :: else
    fi
  }
  if :: wakes -> make_ready(fiber) :: else fi
}

init {
  atomic {
    start_fiber(0);
    start_fiber(1);
    start_workers();
#ifdef SAME
    run selecting(0, 0, 0);
    run selecting(1, 1, 1);
#else
    run selecting(0, 0, 1);
    run selecting(1, 1, 0);
#endif
#ifdef MEET
    run select_canceller(0);
#else
    run sender(0);
    run sender(1);
#endif
    run reaper();
    run select_canceller(1)
  }
#ifdef MEET
  ended == FIBERS;
  assert(taken[0] + taken[1] == 0 || taken[0] == 2 || taken[1] == 2)
#else
  ended == FIBERS && sent == OBJECTS;
  assert(things[0] + taken[0] == 1 && things[1] + taken[1] == 1)
#endif
}
