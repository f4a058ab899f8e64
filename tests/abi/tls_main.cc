// The program around tls_checks.cc, which may be part of a shared library.
extern "C" int tls_checks();

int main() { return tls_checks(); }
