/* Why both sides of [sleep] (idle.h) are read-modify-writes: announce and look again, publish and look for
   sleepers, with the store buffers of x86 (TSO), of one entry each. A locked instruction empties the buffer
   of its own processor before it goes on; a plain store is seen by others when its buffer is written back.

   All other models have sequentially consistent memory: that is what these orders, and the tests over
   relacy, buy.

     who        plays
     waker      a queue's publish_seq_cst(), then Idle::claim_sleeper()
     sleeper    Idle::sleep()

   Demanded: the sleeper sees the work, or is rung.

   Planted: PLANT_PLAIN_PUBLISH     the waker publishes by a store
            PLANT_PLAIN_ANNOUNCE    the sleeper announces by a store */

bit has_work, is_asleep;                 /* in memory */
bit work_buffered, sleep_buffered;       /* stored, and not written back */
bit is_rung;

proctype write_back() {
end:
  do
  :: atomic { work_buffered -> has_work = 1; work_buffered = 0 }
  :: atomic { sleep_buffered -> is_asleep = 1; sleep_buffered = 0 }
  od
}

proctype waker() {
  work_buffered = 1;
#ifndef PLANT_PLAIN_PUBLISH
  !work_buffered;
#endif
  if :: is_asleep -> is_rung = 1 :: else fi
}

proctype sleeper() {
  sleep_buffered = 1;
#ifndef PLANT_PLAIN_ANNOUNCE
  !sleep_buffered;
#endif
  if :: has_work :: else -> is_rung fi
}

init { atomic { run write_back(); run waker(); run sleeper() } }
