/* The end of a fiber: who hears of it, and who frees its control block. One fiber of a group ends; one who
   has its handle waits for it, is cancelled, asks it to end, and drops the handle; a thread joins the group
   and destroys it at once. -DTHROWS: the fiber ends by an exception.

     who         plays
     child       seal() on its own stack, then finish_fiber() as the commit step        ending.cc, ending.h
     handle      wait_until_done(), FiberHandle::cancel(), drop_handle()             ending.cc, api_fiber.cc
     worker      ObjectPark::finish()                                                   park.h
     joiner      Group::wait_empty(), ~Group                                            group.cc

   The join word holds the lock, kDone, kDetached and the waiting list; its lock is held from before the
   group has counted the end until kDone is published, so that who has joined the group does not find the
   fiber not done.

   Demanded: the block is freed once, by the last of fiber and handle, and touched by nobody afterwards; the
   result is destroyed once, or handed over; nobody touches the group when its join has returned; the ending
   is not read while it is written; everybody returns.

   Planted: PLANT_DONE_FIRST        says done before the group has counted the fiber (plant 27)
            PLANT_NO_LOOK_LOCKED    the handle does not look under the lock whether all is done (plant 28)
            PLANT_PEEK_DETACHED     the fiber goes by a look without the lock whether the handle has gone
            PLANT_SEAL_UNLOCKED     the result is sealed without the lock
            PLANT_DECREMENT_FIRST   the group's count falls before the group's lock is taken */

#define FIBERS 1                         /* the one with the handle; the child only ends */
#include "fibers.pml"

/* The child's block. */
bit locked, is_done, is_detached;        /* the join word */
bit waits, is_claimed;                   /* its waiting list: the only node */
bit node_lives;
bit is_returned, seals;                  /* traits.ending(), and that it is being written */
#ifdef THROWS
bit result_lives;
#define ends_well 0
#else
bit result_lives = 1;
#define ends_well 1
#endif
bit block_lives = 1;

/* Its group. */
bit group_locked, group_lives = 1, group_waits, group_claimed;
byte count = 1;

inline lock() { atomic { !locked -> assert(block_lives); locked = 1 } }
inline unlock() { d_step { assert(block_lives && locked); locked = 0 } }
inline free_block() { d_step { assert(block_lives); assert(!result_lives); block_lives = 0 } }
inline destroy_result() { d_step { assert(block_lives && result_lives); result_lives = 0 } }

inline commit_wait(fiber, parks) {
  park(fiber, parks);
  unlock();
  if :: !parks -> make_ready(fiber) :: else fi
}
#include "workers.pml"

/* seal, of a fiber whose result has a destructor that may do anything; it matters to the handle whether it
   threw. The write of the ending takes two steps, so that a look in between shows. */
inline seal() {
#ifdef PLANT_SEAL_UNLOCKED
  was_detached = is_detached;
#else
  lock();
  was_detached = is_detached;
#endif
  if
  :: !(was_detached && ends_well) -> seals = 1; d_step { seals = 0; is_returned = ends_well }
  :: else
  fi;
#ifndef PLANT_SEAL_UNLOCKED
  unlock();
#endif
  if :: was_detached && ends_well -> destroy_result() :: else fi
}

/* Group::ended */
inline ended_in_group() {
#ifdef PLANT_DECREMENT_FIRST
  count--;
  atomic { !group_locked -> assert(group_lives); group_locked = 1 }
#else
  atomic { !group_locked -> assert(group_lives); group_locked = 1; count-- }
#endif
  assert(block_lives);                   /* the links of the group's list are in the block */
  d_step { if :: count == 0 && group_waits -> group_waits = 0; wakes_joiner = 1 :: else fi }
  d_step { assert(group_lives); group_locked = 0 }
}

proctype child() {
  bit was_detached, claims, wakes_joiner;
  seal();
  d_step { assert(block_lives); was_detached = is_detached && !locked } /* finish_fiber: kDetached */
  if
  :: was_detached
  :: else ->
     lock();
#ifndef PLANT_PEEK_DETACHED
     was_detached = is_detached;
#endif
     d_step {
       if :: waits -> assert(node_lives); waits = 0; claim(0, claims); is_claimed = claims :: else fi
     }
  fi;
#ifdef PLANT_DONE_FIRST
  if
  :: locked && !was_detached -> d_step { is_done = 1; locked = 0 }
  :: else
  fi;
#endif
  ended_in_group();
  if
  :: was_detached -> free_block()        /* nobody else knows the block: its lock goes with it */
  :: else ->
#ifndef PLANT_DONE_FIRST
     d_step { assert(block_lives && locked); is_done = 1; locked = 0 } /* the last touch */
#endif
  fi;
  if :: claims -> make_ready(0) :: else fi;  /* WakeBatch::deliver */
  if :: wakes_joiner -> group_claimed = 1 :: else fi
}

/* drop_handle */
inline drop_handle() {
  do
  :: d_step { assert(block_lives); was_done = is_done && !locked }
     if
     :: was_done
     :: else -> lock()
     fi;
     assert(!(is_ours && seals));        /* traits.ending() is plain data */
     if
     :: is_ours && is_returned ->
        if :: !was_done -> unlock() :: else fi;
        destroy_result();
        is_ours = 0
     :: else ->
#ifdef PLANT_NO_LOOK_LOCKED
        if
        :: was_done -> free_block()
        :: else -> d_step { assert(block_lives); is_detached = 1; locked = 0 }
        fi;
#else
        if
        :: is_done -> free_block()
        :: else -> d_step { assert(block_lives && locked); is_detached = 1; locked = 0 }
        fi;
#endif
        break
     fi
  od
}

/* wait_until_done: it ends claimed, or cancelled. */
inline wait_until_done() {
  lock();
  if
  :: is_done -> unlock()
  :: else ->
     d_step { node_lives = 1; waits = 1; accepts_cancel[0] = 1 }
     leave(0, kWaits);
     if
     :: is_claimed
     :: else -> assert(cancel_asked[0]); atomic { !locked -> assert(block_lives); waits = 0 }
     fi;
     node_lives = 0
  fi
}

proctype handle() {
  bit was_done, is_ours = 1;
  is_running[0];
  if
  :: wait_until_done()
  :: skip
  fi;
  if
  :: lock(); unlock()                    /* FiberHandle::cancel: asks under the lock, unless it is done */
  :: skip
  fi;
  drop_handle();
  end_fiber(0)
}

proctype joiner() {
  atomic { !group_locked -> group_locked = 1 }
  if
  :: count == 0 -> group_locked = 0
  :: else ->
     d_step { group_waits = 1; group_locked = 0 }
     group_claimed
  fi;
  group_lives = 0;
  assert(!block_lives || is_done || is_detached || locked) /* is_done() waits while it is locked */
}

init {
  atomic {
    start_fiber(0);
    run worker();
    run child();
    run handle();
    run joiner();
    run canceller(0)
  }
  ended == FIBERS && !group_lives && !block_lives;
  assert(!result_lives)
}
