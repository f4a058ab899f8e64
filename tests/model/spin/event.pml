/* Event: as it will be built on wait(); there is none in the code yet.

   The flag, the waiting list and the lock are one word. set() wakes all; a wait returns at once when the
   word says set and unlocked. The waiter whose wait returns last destroys the event at once.

   Demanded: everybody returns; a wait without the event's flag reports a request that was made; nobody
   touches the event when it is destroyed, nor a node when its waiter has returned.

   Planted: PLANT_TWO_WORDS          the flag is set before the lock, a word of its own, is given back
            PLANT_WAKE_AT_ONCE       makes a waiter runnable under the lock, then looks for the next one */

#define FIBERS 3
#define WAITERS 2
#include "fibers.pml"
#include "waiting_list.pml"

bit locked, set;
bit lives = 1;
byte returned;

inline unlock() { d_step { assert(lives && locked); locked = 0 } }

inline commit_wait(fiber, parks) {
  park(fiber, parks);
  unlock();
  if :: !parks -> make_ready(fiber) :: else fi
}

#include "workers.pml"

proctype waiter(byte self) {
  byte at;
  bit waits;
  is_running[self];
#ifdef PLANT_TWO_WORDS
  d_step { assert(lives); waits = !set }
#else
  d_step { assert(lives); waits = !(set && !locked) }
#endif
  if
  :: waits ->
     atomic { !locked ->
       assert(lives);
       waits = !set;
       if
       :: waits -> accepts_cancel[self] = 1; push_back(self); locked = 1
       :: else
       fi
     }
     if
     :: waits ->
        leave(self, kWaits);
        if
        :: is_claimed[self]
        :: else ->
           assert(cancel_asked[self]);
           atomic { !locked -> assert(lives); locked = 1; remove(self) }
           unlock()
        fi
     :: else
     fi
  :: else
  fi;
  atomic {
    node_lives[self] = 0;
    returned++;
    if :: returned == WAITERS && set -> lives = 0 :: else fi
  }
  end_fiber(self)
}

proctype setter(byte self) {
  byte at, who, batch_count, i;
  byte batch[WAITERS];
  bit claims;
  is_running[self];
  atomic { !locked -> assert(lives); locked = 1 }
#ifdef PLANT_TWO_WORDS
  set = 1;
#endif
  do
  :: claim_first(who);
     if
#ifdef PLANT_WAKE_AT_ONCE
     :: atomic { who != kNobody -> make_ready(who) }
#else
     :: atomic { who != kNobody -> batch[batch_count] = who; batch_count++ }
#endif
     :: who == kNobody -> break
     fi
  od;
#ifdef PLANT_WAKE_AT_ONCE
  assert(lives && node_lives[0]);        /* the link to the next one is in the node that was just woken */
#endif
  atomic { assert(lives); set = 1; locked = 0 }
  do
  :: i < batch_count -> make_ready(batch[i]); i++
  :: else -> break
  od;
  end_fiber(self)
}

init {
  atomic {
    start_fiber(0); start_fiber(1); start_fiber(2);
    start_workers();
    run waiter(0);
    run waiter(1);
    run setter(2);
    run canceller(1);
    run canceller(1)
  }
  ended == FIBERS;
  assert(waiting_count == 0)
}
