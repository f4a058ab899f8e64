/* Group: a scope is joined while its children end and fail, while it is cancelled from outside and by its
   own deadline, and is destroyed as soon as the join returns. -DCHILDREN=2: two children; -DDEADLINE: with
   a deadline.

   Fiber 0, of a parent group, has made the scope and joins it; fibers 1 and 2 are its children. A child may
   end, or wait for nothing but its cancellation, or fail, which cancels the scope. With -DPLAIN it is no
   scope but a FiberGroup, which covers nobody, and whose destructor cancels and waits for whom the join has
   left.

     who            plays
     maker          Group::join(), wait_empty(), leave_tree(), detach()         group.cc
                    Level::leave(), refresh_cancel()                            level.cc
     child          a fiber's body; Group::record(), which cancels              group.cc
     worker         the commit steps: ObjectPark::finish(), and Group::ended()  park.h, group.h
     from_outside   Group::cancel() of the parent, down into the scope          group.cc
     deadline       Timers::fire_due(), Group::on_deadline()                    timers.cc, group.cc

   Demanded: the join returns, when no child is left and never before; nobody touches the scope when it is
   destroyed, nor a child's block when its group has counted it; a cancellation from outside is never
   forgotten by the maker, and the scope's own is not seen outside it.

   Planted: PLANT_LEAVE_FIRST     the level is left while the scope can be raised (plant 20, -DDEADLINE)
            PLANT_NO_SECOND_LOOK  no look at the outer level behind the withdrawal (plant 19)
            PLANT_COUNT_UNLOCKED  a join that finds the count at 0 does not take the lock (-DPLAIN)
            PLANT_CLAIM_LATE      the last child gives the lock back before it claims the joiner
            PLANT_JOIN_GIVES_UP   the wait for the end of cancelled children accepts cancellations
            PLANT_STAYS_ARMED     the deadline is not taken back (-DDEADLINE)
            PLANT_STAYS_IN_TREE   the scope is not taken out of the tree
            PLANT_ASK_UNLOCKED    the children are asked when the lock has been given back */

#ifndef CHILDREN
#define CHILDREN 1
#endif
#define FIBERS (1 + CHILDREN)
#include "fibers.pml"

/* The scope. */
bit locked, lives = 1;
byte count = CHILDREN;
bit in_scope[FIBERS];                    /* fibers_ */
#ifdef PLAIN
bit is_covered;                          /* maker_ */
#else
bit is_covered = 1;
#endif
bit scope_raised;                        /* cover_ */
bit joiner_linked, joiner_claimed;       /* the only waiter */

/* The parent. */
bit parent_locked, parent_raised, in_tree = 1;
bit outside_done;

bit block_lives[FIBERS];
bit timers_locked, is_armed;

inline lock_scope() { atomic { !locked -> assert(lives); locked = 1 } }
inline unlock_scope() { d_step { assert(lives && locked); locked = 0 } }

inline commit_wait(fiber, parks) {
  park(fiber, parks);
  unlock_scope();
  if :: !parks -> make_ready(fiber) :: else fi
}

/* A child waits for something that never comes. */
#define COMMIT_OTHER
inline commit_other(fiber, parks) {
  park(fiber, parks);
  if :: !parks -> make_ready(fiber) :: else fi
}

/* Group::ended */
#define COMMIT_END
inline commit_end(fiber) {
  if
  :: fiber == 0
  :: else ->
     lock_scope();
     d_step { in_scope[fiber] = 0; count--; parks = 0 }
#ifdef PLANT_CLAIM_LATE
     unlock_scope();
#endif
     d_step {
       assert(lives);
       if
       :: count == 0 && joiner_linked ->
          joiner_linked = 0;
          claim(0, parks);
          joiner_claimed = parks
       :: else
       fi
     }
#ifndef PLANT_CLAIM_LATE
     unlock_scope();                     /* the last touch */
#endif
     block_lives[fiber] = 0;
     if :: parks -> make_ready(0) :: else fi
  fi
}

#include "workers.pml"

#if CHILDREN > 1
#define deliver() \
  if :: wakes[1] -> make_ready(1) :: else fi; \
  if :: wakes[2] -> make_ready(2) :: else fi; \
  if :: wakes[0] -> make_ready(0) :: else fi; \
  d_step { wakes[0] = 0; wakes[1] = 0; wakes[2] = 0 }
#else
#define deliver() \
  if :: wakes[1] -> make_ready(1) :: else fi; \
  if :: wakes[0] -> make_ready(0) :: else fi; \
  d_step { wakes[0] = 0; wakes[1] = 0 }
#endif

/* WakeBatch::request, of a fiber that is still in the group. */
inline ask(fiber) {
  if
  :: atomic { in_scope[fiber] -> assert(block_lives[fiber]) } request(fiber, wakes[fiber])
  :: else
  fi
}

/* Group::cancel(why, batch): sets the flag, then the bits, under the lock. */
inline cancel_scope() {
  lock_scope();
  if
  :: !scope_raised ->
     scope_raised = 1;
#ifdef PLANT_ASK_UNLOCKED
     unlock_scope();
     request(1, wakes[1]);
     assert(block_lives[1]);
     lock_scope();
#else
     ask(1);
#endif
#if CHILDREN > 1
     ask(2);
#endif
     if :: is_covered -> request(0, wakes[0]) :: else fi
  :: else
  fi;
  unlock_scope()
}

/* Group::wait_empty. It ends claimed, or cancelled. */
inline wait_empty(accepts) {
  do
  :: is_empty -> break
#ifdef PLANT_COUNT_UNLOCKED
  :: atomic { !is_empty && count == 0 -> is_empty = 1 }
#endif
  :: !is_empty ->
     lock_scope();
     if
     :: count == 0 -> is_empty = 1; unlock_scope()
     :: else ->
        d_step { accepts_cancel[0] = accepts; joiner_claimed = 0; joiner_linked = 1 }
        leave(0, kWaits);
        if
        :: joiner_claimed                /* what was added meanwhile is waited for as well */
        :: else ->
           assert(accepts && cancel_asked[0]);
           lock_scope();
           joiner_linked = 0;
           unlock_scope();
           break
        fi
     fi
  od
}

/* Level::leave */
inline leave_level() {
  if
  :: scope_raised ->
     cancel_asked[0] = 0;                /* refresh_cancel: clear, then look */
#ifndef PLANT_NO_SECOND_LOOK
     if
     :: parent_raised -> request(0, wakes[0])
     :: else
     fi
#endif
  :: else
  fi
}

proctype maker() {
  bit is_empty, from_outside;
  bit wakes[FIBERS];
  is_running[0];
  wait_empty(1);                         /* Group::join */
#ifdef PLAIN
#ifdef PLANT_COUNT_UNLOCKED
  is_empty = count == 0;                 /* ~FiberGroup asks for size() */
#else
  lock_scope();                          /* ~FiberGroup asks for size() */
  is_empty = count == 0;
  unlock_scope();
#endif
  if
  :: !is_empty -> cancel_scope(); deliver(); wait_empty(0)
  :: else
  fi;
#else
  from_outside = parent_raised;
  if
  :: from_outside -> cancel_scope(); deliver()
  :: else
  fi;
#ifdef PLANT_JOIN_GIVES_UP
  wait_empty(1);
#else
  wait_empty(0);
#endif
#endif

#ifdef PLANT_LEAVE_FIRST
  leave_level();                         /* Group::leave_tree */
#endif
#ifdef DEADLINE
#ifndef PLANT_STAYS_ARMED
  atomic { !timers_locked -> is_armed = 0 }
#endif
#endif
#ifndef PLAIN
  atomic { !locked -> is_covered = 0 }
#ifndef PLANT_LEAVE_FIRST
  leave_level();
#endif
#endif
#ifndef PLANT_STAYS_IN_TREE
  atomic { !parent_locked -> in_tree = 0 } /* Group::detach */
#endif
  atomic { assert(count == 0); lives = 0 }

  from_outside = outside_done;
  assert(!from_outside || cancel_asked[0]);
  assert(!cancel_asked[0] || parent_raised);
  end_fiber(0)
}

proctype child(byte self) {
  bit wakes[FIBERS];
  is_running[self];
  if
  :: cancel_asked[self]                  /* it never ran */
  :: skip
  :: accepts_cancel[self] = 1; leave(self, kWaitsOtherwise)
  :: cancel_scope(); deliver()
  fi;
  end_fiber(self)
}

/* The maker is a fiber of the parent, and the scope a subgroup of it. */
proctype from_outside() {
  bit wakes[FIBERS];
  atomic { !parent_locked -> parent_locked = 1 }
  parent_raised = 1;
  request(0, wakes[0]);
  if
  :: in_tree -> cancel_scope()
  :: else
  fi;
  parent_locked = 0;
  outside_done = 1;
  deliver()
}

#ifdef DEADLINE
proctype deadline() {
  bit wakes[FIBERS];
  atomic { !timers_locked -> timers_locked = 1 }
  if
  :: is_armed -> is_armed = 0; cancel_scope()
  :: else
  fi;
  timers_locked = 0;
  deliver()
}
#endif

init {
  atomic {
    byte fiber;
    for (fiber : 0 .. FIBERS - 1) {
      start_fiber(fiber);
      block_lives[fiber] = 1;
      in_scope[fiber] = fiber != 0
    }
    start_workers();
    run maker();
    run child(1);
#if CHILDREN > 1
    run child(2);
#endif
#ifdef DEADLINE
    is_armed = 1;
    run deadline();
#endif
    run from_outside()
  }
  ended == FIBERS && !lives && outside_done
}
