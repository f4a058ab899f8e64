// One memory order of the code under test, made weaker while a program over relacy runs.
//
//   WEFT_WEAKEN=claim_word.h:183-186:success:acq_rel:acquire build/tests/model/relacy_park_test
//
// Lines are those that the access stands on; success is the order of an operation, failure that of a
// compare-exchange that fails. A program must find it, or the order is stronger than it need be there:
// weaken.py runs all that orders.tsv lists.
//
// Requires: relacy is included already: see relacy_atomic.h.
// Promises: a program in which nothing was weakened, because no test came there, ends with 9.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include <unistd.h>

namespace weft::relacy {

class Weakening {
 public:
  enum class Role { kSuccess, kFailure };
  static constexpr int kExitUnused = 9;

  Weakening() {
    const char* text = std::getenv("WEFT_WEAKEN");
    if (text == nullptr) return;
    char role[16], from[16], to[16];
    if (std::sscanf(text, "%63[^:]:%u-%u:%15[^:]:%15[^:]:%15s", file_, &first_, &last_, role, from,
                    to) != 6) {
      std::fprintf(stderr, "WEFT_WEAKEN: not understood: %s\n", text);
      std::abort();
    }
    role_ = std::string_view(role) == "failure" ? Role::kFailure : Role::kSuccess;
    from_ = order_of(from);
    to_ = order_of(to);
    wanted_ = true;
  }

  ~Weakening() {
    if (!wanted_ || used_) return;
    std::fprintf(stderr, "WEFT_WEAKEN: no test came there\n");
    _exit(kExitUnused);
  }

  // The order that an access has: its own, or the weaker one that was asked for.
  rl::memory_order of(rl::memory_order order, const char* file, unsigned line, Role role) {
    if (!wanted_ || line < first_ || line > last_ || order != from_ || role != role_) return order;
    const char* name = std::strrchr(file, '/');
    if (std::strcmp(name == nullptr ? file : name + 1, file_) != 0) return order;
    used_ = true;
    return to_;
  }

 private:
  static rl::memory_order order_of(std::string_view name) {
    if (name == "relaxed") return rl::mo_relaxed;
    if (name == "acquire") return rl::mo_acquire;
    if (name == "release") return rl::mo_release;
    return name == "acq_rel" ? rl::mo_acq_rel : rl::mo_seq_cst;
  }

  bool wanted_ = false;
  bool used_ = false;
  char file_[64] = {};
  unsigned first_ = 0;
  unsigned last_ = 0;
  Role role_ = Role::kSuccess;
  rl::memory_order from_ = rl::mo_seq_cst;
  rl::memory_order to_ = rl::mo_seq_cst;
};
inline Weakening weakening;

}  // namespace weft::relacy
