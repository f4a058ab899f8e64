/* Condition::wait(lock): as it will be built on wait(); there is none in the code yet.

   The commit step parks the fiber, unlocks the list of the condition, and only then gives the mutex back:
   two object locks are never held together. The mutex is taken again on every return, and that wait accepts
   nothing. Fiber 0 waits for a predicate, and may be cancelled; fiber 1 makes it true under the mutex and
   notifies. Fiber 0 destroys condition and mutex when it has seen the predicate and unlocked.

   Demanded: both return; nobody touches what was destroyed.

   Planted: PLANT_UNLOCK_BEFORE    the fiber gives the mutex back, then links its node: a wake is lost
            PLANT_UNLOCK_FIRST     the commit step gives the mutex back, then parks, with the list locked:
                                   two locks at once, and the notifier's order the other way round
            PLANT_RETURN_UNLOCKED  a cancelled wait does not take the mutex again */

#define FIBERS 2
#include "fibers.pml"

bit condition_locked, is_linked, condition_lives = 1;
bit is_owned, mutex_locked, mutex_lives = 1;
chan mutex_waiters = [2] of { byte };
bit is_claimed[FIBERS];
bit node_lives[FIBERS];
bit predicate, inside;

#define kNobody 255

/* The mutex of mutex.pml, without its fast path. */
inline unlock_mutex(who) {
  atomic { !mutex_locked -> assert(mutex_lives && is_owned); mutex_locked = 1 }
  atomic {
    who = kNobody;
    if
    :: mutex_waiters?who -> is_parked[who] = 0; is_claimed[who] = 1
    :: empty(mutex_waiters)
    fi
  }
  d_step { assert(mutex_lives); mutex_locked = 0; is_owned = 0 }
  if :: who != kNobody -> make_ready(who) :: else fi
}

inline lock_mutex(self) {
  do
  :: atomic { !mutex_locked && !is_owned -> assert(mutex_lives); is_owned = 1 }
     break
  :: atomic { !mutex_locked && is_owned ->
       assert(mutex_lives);
       mutex_locked = 1;
       accepts_cancel[self] = 0;
       is_claimed[self] = 0;
       node_lives[self] = 1;
       mutex_waiters!self
     }
     leave(self, kWaitsOtherwise);
     assert(is_claimed[self]);
     node_lives[self] = 0
  od
}

inline commit_wait(fiber, parks) {
#ifdef PLANT_UNLOCK_FIRST
  assert(!condition_locked);             /* the rule: never two object locks */
  unlock_mutex(who);
#endif
  assert(node_lives[fiber]);
  park(fiber, parks);
  d_step { assert(condition_lives); condition_locked = 0 }
#if !defined(PLANT_UNLOCK_FIRST) && !defined(PLANT_UNLOCK_BEFORE)
  unlock_mutex(who);
#endif
  if :: !parks -> make_ready(fiber) :: else fi;
  who = 0
}

/* A wait for the mutex. */
#define COMMIT_OTHER
inline commit_other(fiber, parks) {
  park(fiber, parks);
  d_step { assert(mutex_lives); mutex_locked = 0 }
}
#define WORKER_LOCALS byte who;
#include "workers.pml"

proctype waiting() {
  byte who;
  bit stops;
  is_running[0];
  lock_mutex(0);
  do
  :: predicate || stops -> break
  :: else ->
#ifdef PLANT_UNLOCK_BEFORE
     unlock_mutex(who);
#endif
     atomic { !condition_locked ->
       condition_locked = 1;
       node_lives[0] = 1;
       accepts_cancel[0] = 1;
       is_claimed[0] = 0;
       is_linked = 1
     }
     leave(0, kWaits);
     if
     :: is_claimed[0]
     :: else ->
        assert(cancel_asked[0]);
        stops = 1;
        atomic { !condition_locked -> assert(condition_lives); is_linked = 0 }
     fi;
     node_lives[0] = 0;
#ifdef PLANT_RETURN_UNLOCKED
     if :: stops :: else -> lock_mutex(0) fi
#else
     lock_mutex(0)
#endif
  od;
  atomic { assert(!inside); inside = 1 }
  d_step { inside = 0; stops = predicate }
  unlock_mutex(who);
  if :: stops -> condition_lives = 0; mutex_lives = 0 :: else fi;
  end_fiber(0)
}

proctype notifying() {
  byte who;
  bit claims;
  is_running[1];
  lock_mutex(1);
  atomic { assert(!inside); inside = 1 }
  d_step { inside = 0; predicate = 1 }
  atomic { !condition_locked -> assert(condition_lives); condition_locked = 1 }
  d_step {
    if
    :: is_linked ->
       assert(node_lives[0]);
       claim(0, claims);
       if :: claims -> is_claimed[0] = 1; is_linked = 0 :: else fi
    :: else
    fi
  }
  d_step { assert(condition_lives); condition_locked = 0 }
  if :: claims -> make_ready(0) :: else fi;
  unlock_mutex(who);
  end_fiber(1)
}

init {
  atomic {
    start_fiber(0);
    start_fiber(1);
    start_workers();
    run waiting();
    run notifying();
#ifdef CANCEL
    run canceller(0)
#endif
  }
  ended == FIBERS
}
