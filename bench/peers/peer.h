/* What the two peer servers share: their command line, a listener, and a way to be told
 * to stop.
 *
 * The peers are the yardstick, so they are written as well as their authors could: one
 * thread is the main thread itself, more threads each have a listener of their own on
 * the same port (SO_REUSEPORT). */
#pragma once

#include <stdint.h>

struct peer_options {
  const char* address;
  uint16_t port;
  unsigned threads;
  unsigned seconds;
  unsigned buffers;
  unsigned buffer_bytes;
};

/* Reads the command line into `options`, which holds the defaults; prints help or a
 * complaint and exits where the program cannot go on. */
void peer_parse_options(int argc, char** argv, const char* what, struct peer_options* options);

/* A non-blocking listener with TCP_NODELAY, which Linux hands down to the accepted
 * sockets. */
int peer_listen(const struct peer_options* options);

/* Returns a descriptor that becomes and stays readable when the process is to end: on
 * SIGTERM, on SIGINT, and when `seconds` have passed. Call it before any other thread
 * is made; any number of threads may watch it, and nobody reads it. */
int peer_stop_fd(unsigned seconds);

/* Raises the limit of open descriptors as far as it goes and returns it. */
unsigned peer_raise_descriptor_limit(void);

/* Runs `serve` in `threads` threads, the caller's being one of them, until all have
 * returned. */
void peer_run_threads(unsigned threads, void* (*serve)(void*), void* argument);

/* Ends the process with "operation: reason". */
_Noreturn void peer_die(const char* operation, int error);
