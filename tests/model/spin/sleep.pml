/* Sleeping: a timer that is the wait itself, against a cancellation; and a timer that a thread arms from
   outside, which a worker that goes to sleep must not miss.

   The fiber sleeps twice (once with -DONE_SLEEP), in the same frame, perhaps on another worker; somebody
   cancels it. With -DOUTSIDE
   there is no fiber: a thread arms a deadline in a worker's wheel, and takes it back or waits.

     who         plays
     fiber       sleep_until()                                          sleep.cc
     worker      commit_sleep(), Timers::arm_and()                      sleep.cc, timers.h
     fire        Sleep::on_fire()                                       sleep.cc
     outside     Timers::arm_outside(), Core::arm_outside()             timers.cc, core.cc

   Demanded: a sleep ends, not before its time unless it was cancelled; it is resumed once; nobody touches
   the timer when the sleep has returned; what is armed from outside fires.

   Planted: PLANT_FIRE_UNLOCKED, PLANT_BLIND_SLEEP (timer_turns.pml)
            PLANT_ARM_FIRST          the timer is armed before the fiber is parked, and not under one lock
            PLANT_STAYS_ARMED        a sleep that was cancelled does not take its timer back
            PLANT_NO_REACH           who arms from outside does not look for a sleeper (-DOUTSIDE) */

#define LAST 2
#define FIBERS 1
#ifdef OUTSIDE
#define ARMS_OUTSIDE
#endif
#include "fibers.pml"
#include "timers.pml"

byte sleeps_until;
bit is_over;                             /* Sleep::over */
bit has_fired;

/* Sleep::on_fire; with -DOUTSIDE a deadline that touches no fiber. Claims this wait and no later one: the
   timer is armed for one wait only, so the epoch that it compares cannot be another's. */
inline fire(wheel, at) {
  d_step {
    assert(timer_lives && !is_taken_back);
#ifdef OUTSIDE
    has_fired = 1;
#else
    if
    :: is_parked[0] -> claim(0, wakes); is_over = 1
    :: else
    fi
#endif
  }
}

#include "timer_turns.pml"

/* commit_sleep: the timer is armed, and the fiber parked, under the wheel's lock. */
inline commit_wait(fiber, parks) {
#ifdef PLANT_ARM_FIRST
  lock_wheel(home);
  insert(home, sleeps_until);
  unlock_wheel(home);
  park(fiber, parks);
#else
  atomic { !wheel_locked[home] -> wheel_locked[home] = 1; insert(home, sleeps_until) }
  park(fiber, parks);
  if :: !parks -> is_armed[home] = 0 :: else fi;
  unlock_wheel(home);
#endif
  atomic { if :: !parks -> make_ready(fiber) :: else fi; doorbell[home] = 1 }
}
#include "workers.pml"

/* sleep_until. The timer lies in its frame. */
inline sleep_once(until) {
  if
  :: cancel_asked[0]
  :: else ->
     atomic {
       timer_lives = 1;
       is_over = 0;
       is_taken_back = 0;
       sleeps_until = until;
       accepts_cancel[0] = 1;
       if :: home = 0 :: home = 1 fi
     }
     leave(0, kWaits);
     if
     :: is_over -> assert(now >= until)
     :: else ->
        assert(cancel_asked[0]);
#ifndef PLANT_STAYS_ARMED
        disarm()
#endif
     fi;
     timer_lives = 0
  fi
}

proctype fiber() {
  is_running[0];
  sleep_once(1);
#ifndef ONE_SLEEP
  cancel_asked[0] = 0;                   /* the level that was cancelled is left */
  sleep_once(2);
#endif
  end_fiber(0)
}

#ifdef OUTSIDE
/* A thread that is no worker: Group::set_deadline, and perhaps Group::leave_tree. */
proctype outside() {
  byte deadline;
  select (deadline : 1 .. LAST);
  timer_lives = 1;
  atomic { !wheel_locked[0] -> wheel_locked[0] = 1; insert(0, deadline) }
  unlock_wheel(0);                       /* publishes by an RMW */
#ifndef PLANT_NO_REACH
  if                                     /* Idle::reach */
  :: atomic { sleep_word[0] -> sleep_word[0] = 0 } doorbell[0] = 1
  :: else
  fi;
#endif
  if
  :: skip -> has_fired
  :: skip -> disarm()
  fi;
  timer_lives = 0;
  ended++
}
#endif

init {
  atomic {
#ifdef OUTSIDE
    run outside();
#else
    start_fiber(0);
    start_workers();
    run fiber();
    run canceller(0);
    run turns(1);
#endif
    run turns(0);
    run watcher(0);
    run clock()
  }
  ended == 1 && now == LAST;
  assert(!is_armed[0] && !is_armed[1])
}
