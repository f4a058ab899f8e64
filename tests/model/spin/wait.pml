/* wait(): fibers, and threads that are no fibers, wait for one object, whose waker wakes all of them.

   The object is what a join word or the count of a group is to its waiters: a flag `done`, the waiting list
   and the lock in one word. Whoever returns last destroys the object at once. Fiber 0 is cancelled, twice
   at the same time. A single thread then waits for another object, with the same record, while its first
   waker may not have come out of notify() yet; of two threads the records go into the pool.

     who                 plays
     fiber, foreign      wait(), wait_as_thread()            park.cc
     worker              ObjectPark::finish()                park.h, commit_wait in park.cc
     waker               WakeBatch::add_all, deliver()       wake_batch.h, wake_batch.cc
                         ForeignWaiter::wait, notify         foreign_waiter.cc

   Demanded: everybody returns; a waiter is resumed once for a wait; nobody touches the object when the last
   waiter has returned, nor a node when its waiter has.

   Size: two fibers and a thread, or (-DFIBERS=1 -DTHREADS=2) a fiber and two threads. All four together are
   more than 60 million states, and add nothing: the lock lets one of them at the list at a time, a waker
   meets each waiter by itself, and what two waiters can have with each other are their neighbours on the
   list and in the batch. Every kind of neighbour is in one of the two.

   Planted: PLANT_UNLOCK_FIRST           the commit step unlocks, then parks
            PLANT_PARK_FIRST             parks before the fiber has left its stack
            PLANT_PARK_OVER_REQUEST      parks though a request is there
            PLANT_WAKES_CANCELLED        counts a cancelled waiter as woken
            PLANT_NEXT_LATE              looks for the next record when this one has been notified
            PLANT_BLIND_FUTEX            a thread goes to sleep without a second look at its word
            PLANT_ONE_FUTEX              takes the first wake from its sleep for the one it waits for
            PLANT_REMOVE_UNLOCKED        a cancelled waiter takes its node off without the lock */

#ifndef FIBERS
#define FIBERS 2
#define THREADS 1
#endif
#define WAITERS 3
#include "fibers.pml"
#include "waiting_list.pml"

bit locked, done;                        /* the object's word */
bit lives = 1;
byte returned;

bit second_done, second_waits;           /* the second object, for which thread 0 alone waits */

/* ForeignWaiter: the record of a thread. The pool keeps it, so that it lives for ever. */
bit is_notified[THREADS];                /* word: kNotified */
bit in_futex[THREADS];
byte next_record[THREADS];               /* next: in a batch of wakes, or in the pool */
#define kNone 9

inline unlock() { d_step { assert(lives && locked); locked = 0 } }

inline commit_wait(fiber, parks) {
#ifndef PLANT_PARK_FIRST
#ifdef PLANT_UNLOCK_FIRST
  unlock();
  park(fiber, parks);
#else
  park(fiber, parks);
  unlock();
#endif
  if :: !parks -> make_ready(fiber) :: else fi
#else
  skip
#endif
}

#include "workers.pml"

inline return_from_wait() {
  node_lives[self] = 0;
  returned++;
  if :: returned == WAITERS -> lives = 0 :: else fi
}

proctype fiber(byte self; bit cancellable) {
  byte at;
  bit parks, waits;
  is_running[self];
  atomic {
    !locked -> assert(lives);            /* lock; nobody else reads or changes the object until the unlock */
    waits = !done;
    if
    :: waits -> accepts_cancel[self] = cancellable; push_back(self); locked = 1
    :: else
    fi
  }
  if
  :: waits ->
#ifdef PLANT_PARK_FIRST
     park(self, parks);
     unlock();
     if :: parks -> leave(self, kWaits) :: else fi;
#else
     leave(self, kWaits);
#endif
     if
     :: is_claimed[self]
     :: else ->
        assert(cancellable && cancel_asked[self]);
#ifdef PLANT_REMOVE_UNLOCKED
        remove(self)
#else
        atomic { !locked -> assert(lives); locked = 1; remove(self) }
        unlock()
#endif
     fi
  :: else
  fi;
  atomic { return_from_wait(); end_fiber(self) }
}

/* ForeignWaiter::wait: futex_wait() sleeps only if the word still is what it was; a wake that comes for an
   earlier wait only ends this sleep. */
inline wait_for_notify(thread) {
  do
  :: is_notified[thread] -> break
  :: else ->
#ifdef PLANT_BLIND_FUTEX
     in_futex[thread] = 1;
#else
     d_step { in_futex[thread] = !is_notified[thread] }
#endif
     !in_futex[thread];
#ifdef PLANT_ONE_FUTEX
     break
#endif
  od
}

/* ForeignWaiter::notify: the store, and then the wake; the thread may be anywhere in between. */
inline notify(thread) {
  is_notified[thread] = 1;
  in_futex[thread] = 0
}

proctype foreign(byte thread) {
  byte at, self = FIBERS + thread;
  bit waits;
  atomic {
    !locked -> assert(lives);
    waits = !done;
    if :: waits -> is_notified[thread] = 0; push_back(self); locked = 1 :: else fi
  }
  if
  :: waits ->
     unlock();
     wait_for_notify(thread);
     assert(is_claimed[self])
  :: else
  fi;
  atomic { return_from_wait() }
#if THREADS == 1
  atomic {
    waits = !second_done;
    if :: waits -> is_notified[0] = 0; second_waits = 1 :: else fi
  }
  if
  :: waits -> wait_for_notify(0); assert(second_done)
  :: else
  fi
#else
  next_record[thread] = kNone            /* ~Lease: into the pool */
#endif
}

proctype waker() {
  byte at, who, batch_count, i, record = kNone;
  byte batch[FIBERS];
  bit claims;
  atomic { !locked -> assert(lives); locked = 1 }
  do
  :: claim_first(who);
     if
     :: atomic { who < FIBERS -> batch[batch_count] = who; batch_count++ }
     :: atomic { who >= FIBERS && who != kNobody ->
          next_record[who - FIBERS] = record;
          record = who - FIBERS
        }
     :: who == kNobody -> break
     fi
  od;
  atomic { assert(lives); done = 1; locked = 0 } /* one store, and the last touch */
  do
  :: i < batch_count -> make_ready(batch[i]); i++
  :: else -> break
  od;
  do
  :: record != kNone ->
#ifdef PLANT_NEXT_LATE
     notify(record);
     record = next_record[record]
#else
     i = next_record[record];
     notify(record);
     record = i
#endif
  :: else -> break
  od
}

#if THREADS == 1
/* The second object is changed under its lock at once, and thread 0 notified after that. */
proctype second_waker() {
  bit waits;
  atomic { waits = second_waits; second_done = 1 }
  if :: waits -> notify(0) :: else fi
}
#endif

init {
  atomic {
    start_fiber(0);
    run fiber(0, 1);
#if FIBERS > 1
    start_fiber(1);
    run fiber(1, 0);
#endif
    run foreign(0);
    start_workers();
    run waker();
#if THREADS > 1
    run foreign(1);
#else
    run second_waker();
    run canceller(0);
#endif
    run canceller(0)
  }
  ended == FIBERS && returned == WAITERS;
  assert(waiting_count == 0 && !lives)
}
