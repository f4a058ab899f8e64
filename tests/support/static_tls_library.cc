// A library whose thread-local data must lie at a fixed distance from the thread's control block: when it is
// opened late, libc gives it a place that every thread has had from its beginning, and writes the initial value
// there in all of them. For static_tls_test.

__attribute__((tls_model("initial-exec"))) static thread_local int number = 42;
__attribute__((tls_model("initial-exec"))) static thread_local int zero;

extern "C" {
__attribute__((noinline)) int weft_test_number() { return number; }
__attribute__((noinline)) int weft_test_zero() { return zero; }
__attribute__((noinline)) void weft_test_set(int value) {
  number = value;
  zero = value;
}
}
