// The mutex of code that may make a system call under its lock: std::mutex, or what stands for it under the
// controlled scheduler of tests/model, where a thread that waits must let the others run.
//
//   base::Mutex mutex_;
//   std::unique_lock<base::Mutex> lock(mutex_);
#pragma once

#if defined(WEFT_MODEL)
#include "tests/model/blocking.h"
#else
#include <mutex>
#endif

namespace weft::base {

#if defined(WEFT_MODEL)
using Mutex = model::Mutex;
#else
using Mutex = std::mutex;
#endif

}  // namespace weft::base
