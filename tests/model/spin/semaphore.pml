/* Semaphore: as it will be built on wait(); there is none in the code yet.

   First come first served, acquire(n). Fiber 0 wants two permits and may be cancelled, fiber 1 wants one;
   one is there, and no other will come. A cancelled waiter that stood first takes its node off, and must
   let those behind it have what was too little for it: whoever takes a cancelled waiter off runs the grant
   again, under the same lock.

   Demanded: fiber 1 returns.

   Planted: PLANT_NO_GRANT           the cancelled waiter only takes its node off */

#define FIBERS 2
#define WAITERS 2
#include "fibers.pml"
#include "waiting_list.pml"

bit locked;
byte permits = 1;
byte wants[FIBERS];

inline lock() { atomic { !locked -> locked = 1 } }
inline unlock() { d_step { assert(locked); locked = 0 } }

inline commit_wait(fiber, parks) {
  park(fiber, parks);
  unlock();
  if :: !parks -> make_ready(fiber) :: else fi
}

#include "workers.pml"

/* Under the lock. The permits go with the claim. Nodes of cancelled waiters are dropped on the way. */
inline grant() {
  who = kNobody;
  do
  :: d_step { who == kNobody && waiting_count > 0 && wants[waiting[0]] <= permits ->
       who = waiting[0];
       assert(node_lives[who]);
       remove(who);
       claim(who, claims);
       if
       :: claims -> is_claimed[who] = 1; permits = permits - wants[who]
       :: else -> who = kNobody
       fi;
       claims = 0
     }
  :: else -> break
  od
}

proctype fiber(byte self; byte count; bit cancellable) {
  byte at, who = kNobody;
  bit waits, claims;
  is_running[self];
  atomic { !locked ->
    waits = !(waiting_count == 0 && permits >= count);
    if
    :: waits -> wants[self] = count; accepts_cancel[self] = cancellable; push_back(self); locked = 1
    :: else -> permits = permits - count
    fi
  }
  if
  :: waits ->
     leave(self, kWaits);
     if
     :: is_claimed[self] -> node_lives[self] = 0
     :: else ->
        assert(cancel_asked[self]);
        atomic { !locked -> locked = 1; remove(self); node_lives[self] = 0 }
#ifndef PLANT_NO_GRANT
        grant();
#endif
        unlock();
        if :: who != kNobody -> make_ready(who) :: else fi
     fi
  :: else
  fi;
  end_fiber(self)
}

init {
  atomic {
    start_fiber(0); start_fiber(1);
    start_workers();
    run fiber(0, 2, 1);
    run fiber(1, 1, 0);
    run canceller(0)
  }
  ended == FIBERS;
  assert(waiting_count == 0 && permits == 0)
}
