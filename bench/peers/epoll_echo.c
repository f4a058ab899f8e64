/* epoll_echo: an echo server on plain epoll, the yardstick that everybody knows.
 *
 *   epoll_echo --port 7000 --threads 1 --seconds 30
 *
 * Level-triggered, and for each event one read and one write: a second read, to learn
 * that there is nothing more, would cost more than the event that tells. When the peer
 * does not take its bytes, the rest is kept and nothing more is read from it until they
 * have gone. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "peer.h"

enum { kEventsAtOnce = 256 };

/* Bytes that were read and not yet taken by the socket. Most connections never have
 * any. */
struct rest {
  char* bytes;
  size_t begin;
  size_t end;
};

struct server {
  const struct peer_options* options;
  int stop_fd;
  struct rest*
      rests; /* by descriptor; each is touched only by the thread that has its connection */
};

struct thread {
  struct server* server;
  int epoll;
  int listener;
  char* buffer;
};

static void watch(struct thread* t, int operation, int fd, uint32_t events) {
  struct epoll_event event = {.events = events, .data.fd = fd};
  if (epoll_ctl(t->epoll, operation, fd, &event) != 0) peer_die("epoll_ctl", errno);
}

static void accept_all(struct thread* t) {
  for (;;) {
    const int fd = accept4(t->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      watch(t, EPOLL_CTL_ADD, fd, EPOLLIN);
    } else if (errno == EAGAIN) {
      return;
    } else if (errno != EINTR && errno != ECONNABORTED) {
      peer_die("accept4", errno);
    }
  }
}

static void end_connection(struct thread* t, int fd) {
  free(t->server->rests[fd].bytes);
  t->server->rests[fd] = (struct rest){0};
  close(fd);
}

static void keep_rest(struct thread* t, int fd, const char* bytes, size_t length) {
  char* copy = malloc(length);
  if (copy == NULL) peer_die("malloc", ENOMEM);
  memcpy(copy, bytes, length);
  t->server->rests[fd] = (struct rest){.bytes = copy, .end = length};
  watch(t, EPOLL_CTL_MOD, fd, EPOLLOUT);
}

static void echo(struct thread* t, int fd) {
  const ssize_t got = read(fd, t->buffer, t->server->options->buffer_bytes);
  if (got <= 0) {
    if (got == 0 || (errno != EAGAIN && errno != EINTR)) end_connection(t, fd);
    return;
  }
  const ssize_t sent = write(fd, t->buffer, (size_t)got);
  if (sent == got) return;
  if (sent < 0 && errno != EAGAIN && errno != EINTR) {
    end_connection(t, fd);
    return;
  }
  const size_t taken = sent < 0 ? 0 : (size_t)sent;
  keep_rest(t, fd, t->buffer + taken, (size_t)got - taken);
}

static void send_rest(struct thread* t, int fd) {
  struct rest* rest = &t->server->rests[fd];
  const ssize_t sent = write(fd, rest->bytes + rest->begin, rest->end - rest->begin);
  if (sent < 0) {
    if (errno != EAGAIN && errno != EINTR) end_connection(t, fd);
    return;
  }
  rest->begin += (size_t)sent;
  if (rest->begin < rest->end) return;
  free(rest->bytes);
  *rest = (struct rest){0};
  watch(t, EPOLL_CTL_MOD, fd, EPOLLIN);
}

static void* serve(void* argument) {
  struct thread t = {.server = argument};
  t.listener = peer_listen(t.server->options);
  t.buffer = malloc(t.server->options->buffer_bytes);
  t.epoll = epoll_create1(EPOLL_CLOEXEC);
  if (t.buffer == NULL || t.epoll < 0) peer_die("epoll_create1", errno);
  watch(&t, EPOLL_CTL_ADD, t.listener, EPOLLIN);
  watch(&t, EPOLL_CTL_ADD, t.server->stop_fd, EPOLLIN);

  struct epoll_event events[kEventsAtOnce];
  for (int stopping = 0; !stopping;) {
    const int n = epoll_wait(t.epoll, events, kEventsAtOnce, -1);
    if (n < 0 && errno != EINTR) peer_die("epoll_wait", errno);
    for (int i = 0; i < n; ++i) {
      const int fd = events[i].data.fd;
      if (fd == t.listener) {
        accept_all(&t);
      } else if (fd == t.server->stop_fd) {
        stopping = 1;
      } else if (t.server->rests[fd].bytes != NULL) {
        send_rest(&t, fd);
      } else {
        echo(&t, fd);
      }
    }
  }
  close(t.epoll);
  close(t.listener);
  free(t.buffer);
  return NULL;
}

int main(int argc, char** argv) {
  struct peer_options options = {
      .address = "127.0.0.1", .threads = 1, .seconds = 60, .buffers = 1, .buffer_bytes = 65536};
  peer_parse_options(argc, argv, "epoll_echo: an echo server on plain epoll.", &options);
  signal(SIGPIPE, SIG_IGN);
  struct server server = {.options = &options, .stop_fd = peer_stop_fd(options.seconds)};
  const unsigned descriptors = peer_raise_descriptor_limit();
  server.rests = calloc(descriptors, sizeof *server.rests);
  if (server.rests == NULL) peer_die("calloc", ENOMEM);
  peer_run_threads(options.threads, serve, &server);
  for (unsigned fd = 0; fd < descriptors; ++fd) free(server.rests[fd].bytes);
  free(server.rests);
  return 0;
}
