// How many CPUs this process may use: its affinity mask, and the quota of its control group.
#pragma once

namespace weft::os {

// CPUs in the affinity mask of the calling thread, at least 1. Call from: any thread.
int affinity_cpus();

// min(affinity mask, the cgroup's CPU quota rounded up), at least 1. Reads files of /proc and /sys; a
// file that is missing or strange means: no quota. Call from: any thread.
int usable_cpus();

}  // namespace weft::os
