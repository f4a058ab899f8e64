/* The timers of two workers (timers.h): one timer that a fiber arms, takes back and arms again, while the
   worker's own turn and the watcher fire what is due.

   This file has the wheels and their lock; firing is in timer_turns.pml. Before it includes this file a
   model defines LAST, the last moment: time comes to it, and stops.

   Planted here: PLANT_HINT_LATE    says what is earliest only when the lock has been given back */

#define WHEELS 2
#define kNever 200

bit wheel_locked[WHEELS];                /* Timers::lock_ */
bit is_armed[WHEELS];                    /* the timer is in this wheel */
byte due_at;                             /* TimerNode::deadline_ns */
byte earliest[WHEELS] = kNever;          /* Timers::earliest_ */
byte home;                               /* Timer::home */
bit timer_lives;                         /* the frame that holds it has not returned */
bit is_taken_back;                       /* Timer::disarm has returned, and it was not armed again */

byte now;
proctype clock() {
  do
  :: now < LAST -> now++
  :: else -> break
  od
}

inline publish(wheel) {
  d_step { if :: is_armed[wheel] -> earliest[wheel] = due_at :: else -> earliest[wheel] = kNever fi }
}

inline lock_wheel(wheel) { atomic { !wheel_locked[wheel] -> wheel_locked[wheel] = 1 } }
#ifdef PLANT_HINT_LATE
inline unlock_wheel(wheel) { wheel_locked[wheel] = 0; publish(wheel) }
#else
inline unlock_wheel(wheel) { atomic { publish(wheel); wheel_locked[wheel] = 0 } }
#endif

/* Timers::insert; under the lock. */
inline insert(wheel, deadline) {
  d_step {
    assert(timer_lives && !is_armed[0] && !is_armed[1] && wheel_locked[wheel]);
    due_at = deadline;
    is_armed[wheel] = 1
  }
}

/* Timer::disarm: afterwards nobody touches the timer. */
inline disarm() {
  atomic { !wheel_locked[home] -> wheel_locked[home] = 1; is_armed[home] = 0 }
  unlock_wheel(home);
  is_taken_back = 1
}
