/* Mutex: as it will be built on wait(); there is none in the code yet.

   The owner, the waiting list and the lock are one word. lock() is not interrupted, acquire() may be. By
   default an unlock lets those who come along barge in, and wakes the first waiter, which tries again; with
   -DHANDOFF it gives the mutex to that waiter. With -DFAST_PATH lock and unlock are one CAS on the word
   when nobody waits and nobody has it locked. Fiber 0 begins as the owner.

   -DDESTROY: fiber 2 locks last; when it knows the others to have unlocked it destroys the mutex, behind
   its own unlock. How it knows is not the mutex's matter (a join), so no word of the mutex is read for it.

   Demanded: one owner at a time; nobody waits for ever; a cancelled acquire() reports only what was asked;
   no request is lost; nobody touches the mutex when it is destroyed.

   Planted: PLANT_UNLOCK_FIRST       the commit step unlocks, then parks
            PLANT_WAKES_CANCELLED    counts a cancelled waiter as woken
            PLANT_CANCEL_ALL         a cancellation ends waits that accept none
            PLANT_NO_TRY             a waiter that was woken and cancelled leaves without a try
            PLANT_TWO_WORDS          the lock of the list is a word of its own (-DFAST_PATH) */

#define FIBERS 3
#define WAITERS 3
#include "fibers.pml"
#include "waiting_list.pml"

byte owner;
bit locked;                              /* the list's lock bit */
bit lives = 1;
byte inside;                             /* how many are in the critical section */
bit has_unlocked[FIBERS];

inline lock_list() { atomic { !locked -> assert(lives); locked = 1 } }
inline unlock_list() { d_step { assert(lives && locked); locked = 0 } }

inline commit_wait(fiber, parks) {
#ifdef PLANT_UNLOCK_FIRST
  unlock_list();
  park(fiber, parks);
#else
  park(fiber, parks);
  unlock_list();
#endif
  if :: !parks -> make_ready(fiber) :: else fi
}

#include "workers.pml"

#define kUndecided 2

/* The CAS of the fast path: the whole word says that nobody owns, waits, or has the list locked. */
inline try_fast(self) {
#ifdef FAST_PATH
  d_step {
    assert(lives);
    if
#ifdef PLANT_TWO_WORDS
    :: owner == kNobody && waiting_count == 0 -> owner = self; got = 1
#else
    :: owner == kNobody && waiting_count == 0 && !locked -> owner = self; got = 1
#endif
    :: else
    fi
  }
#else
  skip
#endif
}

/* lock() or acquire(): got is 1, or 0 when it was cancelled. */
inline acquire(self, cancellable) {
  got = kUndecided;
  do
  :: got != kUndecided -> break
  :: else ->
     try_fast(self);
     if
     :: got == 1
     :: else ->
        lock_list();
        if
        :: owner == kNobody -> d_step { assert(lives); owner = self; got = 1; locked = 0 }
        :: else ->
           d_step { assert(owner != self); accepts_cancel[self] = cancellable; push_back(self) }
           leave(self, kWaits);
           if
           :: is_claimed[self] ->
              node_lives[self] = 0;
#ifdef HANDOFF
              assert(owner == self);
              got = 1
#endif
#ifdef PLANT_NO_TRY
              if :: cancellable && cancel_asked[self] -> got = 0 :: else fi
#endif
           :: else ->
              assert(cancellable && cancel_asked[self]);
              atomic { !locked -> assert(lives); locked = 1; remove(self); node_lives[self] = 0 }
              unlock_list();
              got = 0
           fi
        fi
     fi
  od
}

inline unlock(self) {
  is_out = 0;
#ifdef FAST_PATH
  d_step {
    assert(lives && owner == self);
    if
#ifdef PLANT_TWO_WORDS
    :: waiting_count == 0 -> owner = kNobody; is_out = 1
#else
    :: waiting_count == 0 && !locked -> owner = kNobody; is_out = 1
#endif
    :: else
    fi
  }
#endif
  if
  :: is_out
  :: else ->
     lock_list();
     assert(owner == self);
     claim_first(who);
#ifdef PLANT_TWO_WORDS
     owner = kNobody;
     unlock_list();
#else
     atomic {                            /* one store: free, or given away, and unlocked; the last touch */
       assert(lives);
#ifdef HANDOFF
       owner = who;
#else
       owner = kNobody;
#endif
       locked = 0
     }
#endif
     if :: who != kNobody -> make_ready(who) :: else fi;
     who = kNobody
  fi
}

inline enter_and_leave() {
  d_step { inside++; assert(owner == self && inside == 1) }
  d_step { inside--; has_unlocked[self] = 1 }
}

proctype fiber(byte self; bit cancellable) {
  byte got, at, who = kNobody;
  bit is_out, claims;
  is_running[self];
  if
  :: self == 0 -> got = 1                /* begins as the owner */
  :: else -> acquire(self, cancellable)
  fi;
  if
  :: got == 1 -> enter_and_leave(); unlock(self)
  :: else
  fi;
  if
  :: got == 0
  :: got == 0 ->                         /* the same stack waits again, and this wait accepts nothing */
     acquire(self, 0);
     assert(got == 1);
     unlock(self)
  :: got == 1
  fi;
  end_fiber(self)
}

#ifdef DESTROY
proctype destroyer(byte self) {
  byte got, at, who = kNobody;
  bit is_out, claims, is_last;
  is_running[self];
  acquire(self, 0);
  is_last = has_unlocked[0] && has_unlocked[1];
  unlock(self);
  if :: is_last -> lives = 0 :: else fi;
  end_fiber(self)
}
#endif

init {
  atomic {
    start_fiber(0); start_fiber(1); start_fiber(2);
    start_workers();
    run fiber(0, 0);
#ifdef DESTROY
    run fiber(1, 0);
    run destroyer(2)
#else
    run fiber(1, 1);
    run fiber(2, 0);
    run canceller(1);
    run canceller(1);
    run canceller(2)
#endif
  }
  ended == FIBERS;
  assert(!lives || (owner == kNobody && waiting_count == 0))
}
