/* uring_echo: an echo server on io_uring alone, as fast as we can make one.
 *
 *   uring_echo --port 7000 --threads 1 --seconds 30
 *
 * One ring a thread (DEFER_TASKRUN, registered); multishot accept into direct
 * descriptors; multishot receive into a pool of provided buffers; the buffer that was
 * filled is the one that is sent, so no byte is copied; and everything that one turn
 * prepared goes to the kernel in the one call that waits for more.
 *
 * Replies keep their order because a connection has at most one send under way and a
 * queue of filled buffers behind it. A connection whose peer does not take its bytes is
 * stopped from receiving once it holds kMostQueued buffers, so that it alone cannot
 * empty the pool. */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "peer.h"

enum { kSubmissionEntries = 1024, kCompletionEntries = 8192 };
enum { kCannotRunHere = 77 }; /* exit status, as in the tests */
enum { kMostConnections = 32768, kMostQueued = 64, kBufferGroup = 0 };

/* The high half of user_data; the low half is the connection's slot. */
enum operation { kStop = 1, kAccept, kReceive, kSend, kCancel, kClose };

#define NONE UINT32_MAX /* no buffer, no connection */

struct buffer {
  uint32_t begin; /* bytes before it have been sent */
  uint32_t end;
  uint32_t next; /* in its connection's queue */
};

struct connection {
  uint32_t first_buffer; /* the one that is being sent */
  uint32_t last_buffer;
  uint32_t queued;
  uint32_t next_starved;
  uint8_t receiving;  /* a multishot receive is armed */
  uint8_t cancelling; /* and its end has been asked for */
  uint8_t ended;      /* nothing more will be received */
  uint8_t broken;     /* nothing more can be sent */
};

struct thread {
  const struct peer_options* options;
  struct io_uring ring;
  int listener;
  int accepting;
  struct io_uring_buf_ring* pool;
  char* bytes; /* of all buffers */
  struct buffer* buffers;
  uint32_t buffers_free;
  struct connection* connections;
  uint32_t slots;
  uint32_t first_starved; /* connections that found the pool empty */
  int stopping;
};

struct server {
  const struct peer_options* options;
  int stop_fd;
};

static uint64_t tag(enum operation operation, uint32_t slot) {
  return (uint64_t)operation << 32 | slot;
}

/* A free entry: when the queue is full, what is in it goes to the kernel first. */
static struct io_uring_sqe* entry(struct thread* t) {
  struct io_uring_sqe* sqe = io_uring_get_sqe(&t->ring);
  while (sqe == NULL) {
    const int result = io_uring_submit(&t->ring);
    if (result < 0 && result != -EINTR) peer_die("io_uring_submit", -result);
    sqe = io_uring_get_sqe(&t->ring);
  }
  return sqe;
}

static void prepare_accept(struct thread* t) {
  struct io_uring_sqe* sqe = entry(t);
  io_uring_prep_multishot_accept_direct(sqe, t->listener, NULL, NULL, 0);
  io_uring_sqe_set_data64(sqe, tag(kAccept, 0));
  t->accepting = 1;
}

static void prepare_receive(struct thread* t, uint32_t slot) {
  struct io_uring_sqe* sqe = entry(t);
  io_uring_prep_recv_multishot(sqe, (int)slot, NULL, 0, 0);
  io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE | IOSQE_BUFFER_SELECT);
  sqe->buf_group = kBufferGroup;
  io_uring_sqe_set_data64(sqe, tag(kReceive, slot));
  t->connections[slot].receiving = 1;
}

static void prepare_send(struct thread* t, uint32_t slot) {
  const uint32_t index = t->connections[slot].first_buffer;
  const struct buffer* buffer = &t->buffers[index];
  struct io_uring_sqe* sqe = entry(t);
  io_uring_prep_send(sqe, (int)slot,
                     t->bytes + (size_t)index * t->options->buffer_bytes + buffer->begin,
                     buffer->end - buffer->begin, MSG_WAITALL | MSG_NOSIGNAL);
  io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
  io_uring_sqe_set_data64(sqe, tag(kSend, slot));
}

static void prepare_cancel_of_receive(struct thread* t, uint32_t slot) {
  struct io_uring_sqe* sqe = entry(t);
  io_uring_prep_cancel64(sqe, tag(kReceive, slot), 0);
  io_uring_sqe_set_data64(sqe, tag(kCancel, slot));
  t->connections[slot].cancelling = 1;
}

static void give_back(struct thread* t, uint32_t index) {
  io_uring_buf_ring_add(t->pool, t->bytes + (size_t)index * t->options->buffer_bytes,
                        t->options->buffer_bytes, (unsigned short)index,
                        io_uring_buf_ring_mask(t->options->buffers), 0);
  io_uring_buf_ring_advance(t->pool, 1);
  t->buffers_free += 1;
}

static void drop_first_buffer(struct thread* t, struct connection* c) {
  const uint32_t index = c->first_buffer;
  c->first_buffer = t->buffers[index].next;
  c->queued -= 1;
  give_back(t, index);
}

/* Does what the connection's state allows once an operation of it has ended and none of
 * its sends is under way or about to be. */
static void settle(struct thread* t, uint32_t slot) {
  struct connection* c = &t->connections[slot];
  if (c->queued != 0) return;
  if (!c->ended && !c->broken) {
    if (!c->receiving) prepare_receive(t, slot);
    return;
  }
  if (c->receiving) {
    if (!c->cancelling) prepare_cancel_of_receive(t, slot);
    return;
  }
  struct io_uring_sqe* sqe = entry(t);
  io_uring_prep_close_direct(sqe, slot);
  io_uring_sqe_set_data64(sqe, tag(kClose, slot));
}

static void accepted(struct thread* t, const struct io_uring_cqe* cqe) {
  if ((cqe->flags & IORING_CQE_F_MORE) == 0) t->accepting = 0;
  if (cqe->res >= 0) {
    t->connections[cqe->res] = (struct connection){0};
    prepare_receive(t, (uint32_t)cqe->res);
  } else if (cqe->res != -ECONNABORTED && cqe->res != -EINTR && cqe->res != -EAGAIN) {
    peer_die("accept", -cqe->res);
  }
  if (!t->accepting) prepare_accept(t);
}

static void received(struct thread* t, uint32_t slot, const struct io_uring_cqe* cqe) {
  struct connection* c = &t->connections[slot];
  if ((cqe->flags & IORING_CQE_F_MORE) == 0) c->receiving = c->cancelling = 0;
  if (cqe->res > 0) {
    const uint32_t index = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
    t->buffers_free -= 1;
    t->buffers[index] = (struct buffer){.end = (uint32_t)cqe->res, .next = NONE};
    if (c->broken) {
      give_back(t, index);
    } else if (c->queued++ == 0) {
      c->first_buffer = c->last_buffer = index;
      prepare_send(t, slot);
    } else {
      t->buffers[c->last_buffer].next = index;
      c->last_buffer = index;
      if (c->queued > kMostQueued && c->receiving && !c->cancelling) {
        prepare_cancel_of_receive(t, slot);
      }
    }
    /* Overflow ended the multishot; below the limit it goes on at once. */
    if (!c->receiving && !c->broken && c->queued <= kMostQueued) prepare_receive(t, slot);
    if (c->broken) settle(t, slot);
  } else if (cqe->res == -ENOBUFS) {
    c->next_starved = t->first_starved;
    t->first_starved = slot;
    c->receiving = 1; /* as good as: feed_starved() will arm it */
  } else {
    if (cqe->res != -ECANCELED) c->ended = 1;
    settle(t, slot);
  }
}

static void sent(struct thread* t, uint32_t slot, int result) {
  struct connection* c = &t->connections[slot];
  struct buffer* buffer = &t->buffers[c->first_buffer];
  if (result < 0) {
    c->broken = 1;
    while (c->queued != 0) drop_first_buffer(t, c);
  } else {
    buffer->begin += (uint32_t)result;
    if (buffer->begin == buffer->end) drop_first_buffer(t, c);
    if (c->queued != 0) prepare_send(t, slot);
  }
  settle(t, slot);
}

/* Arms the receives that found the pool empty, no more of them than there are buffers.
 * */
static void feed_starved(struct thread* t) {
  for (uint32_t n = t->buffers_free; n != 0 && t->first_starved != NONE; --n) {
    const uint32_t slot = t->first_starved;
    t->first_starved = t->connections[slot].next_starved;
    prepare_receive(t, slot);
  }
}

static void complete(struct thread* t, const struct io_uring_cqe* cqe) {
  const uint32_t slot = (uint32_t)cqe->user_data;
  switch ((enum operation)(cqe->user_data >> 32)) {
    case kStop:
      t->stopping = 1;
      break;
    case kAccept:
      accepted(t, cqe);
      break;
    case kReceive:
      received(t, slot, cqe);
      break;
    case kSend:
      sent(t, slot, cqe->res);
      break;
    case kCancel:
      break; /* the receive's own end says what became of it */
    case kClose:
      if (cqe->res < 0) peer_die("close", -cqe->res);
      break;
  }
}

static void make_ring(struct thread* t) {
  struct io_uring_params parameters = {
      .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL |
               IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
      .cq_entries = kCompletionEntries,
  };
  int result = io_uring_queue_init_params(kSubmissionEntries, &t->ring, &parameters);
  if (result == -EPERM || result == -ENOSYS || result == -EINVAL) {
    fprintf(stderr, "io_uring of Linux 6.1 or newer is not to be had: %s\n", strerror(-result));
    exit(kCannotRunHere);
  }
  if (result < 0) peer_die("io_uring_setup", -result);
  result = io_uring_register_ring_fd(&t->ring);
  if (result != 1) peer_die("io_uring_register_ring_fd", -result);
  result = io_uring_register_files_sparse(&t->ring, t->slots);
  if (result < 0) peer_die("io_uring_register_files_sparse", -result);
}

/* What liburing has as io_uring_setup_buf_ring from 2.4 on. */
static void make_pool(struct thread* t) {
  const unsigned n = t->options->buffers;
  const size_t ring_bytes = n * sizeof(struct io_uring_buf);
  t->pool = mmap(NULL, ring_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  t->bytes = mmap(NULL, (size_t)n * t->options->buffer_bytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  t->buffers = calloc(n, sizeof *t->buffers);
  if (t->pool == MAP_FAILED || t->bytes == MAP_FAILED || t->buffers == NULL) {
    peer_die("buffer pool", ENOMEM);
  }
  struct io_uring_buf_reg registration = {
      .ring_addr = (uint64_t)(uintptr_t)t->pool, .ring_entries = n, .bgid = kBufferGroup};
  const int result = io_uring_register_buf_ring(&t->ring, &registration, 0);
  if (result < 0) peer_die("io_uring_register_buf_ring", -result);
  io_uring_buf_ring_init(t->pool);
  for (unsigned i = 0; i < n; ++i) give_back(t, i);
}

static void prepare_stop(struct thread* t, int stop_fd) {
  struct io_uring_sqe* sqe = entry(t);
  io_uring_prep_poll_add(sqe, stop_fd, POLLIN);
  io_uring_sqe_set_data64(sqe, tag(kStop, 0));
}

static void* serve(void* argument) {
  const struct server* server = argument;
  struct thread* t = calloc(1, sizeof *t);
  if (t == NULL) peer_die("calloc", ENOMEM);
  t->options = server->options;
  t->first_starved = NONE;
  const unsigned descriptors = peer_raise_descriptor_limit();
  t->slots = descriptors < kMostConnections ? descriptors : kMostConnections;
  t->connections = calloc(t->slots, sizeof *t->connections);
  if (t->connections == NULL) peer_die("calloc", ENOMEM);
  t->listener = peer_listen(t->options);
  make_ring(t);
  make_pool(t);
  prepare_stop(t, server->stop_fd);
  prepare_accept(t);

  while (!t->stopping) {
    const int result = io_uring_submit_and_wait(&t->ring, 1);
    if (result < 0 && result != -EINTR && result != -EBUSY) peer_die("io_uring_enter", -result);
    struct io_uring_cqe* cqe;
    unsigned head;
    unsigned n = 0;
    io_uring_for_each_cqe(&t->ring, head, cqe) {
      complete(t, cqe);
      n += 1;
    }
    io_uring_cq_advance(&t->ring, n);
    if (t->first_starved != NONE) feed_starved(t);
  }

  io_uring_queue_exit(&t->ring);
  munmap(t->pool, t->options->buffers * sizeof(struct io_uring_buf));
  munmap(t->bytes, (size_t)t->options->buffers * t->options->buffer_bytes);
  close(t->listener);
  free(t->buffers);
  free(t->connections);
  free(t);
  return NULL;
}

int main(int argc, char** argv) {
  struct peer_options options = {
      .address = "127.0.0.1", .threads = 1, .seconds = 60, .buffers = 1024, .buffer_bytes = 4096};
  peer_parse_options(argc, argv, "uring_echo: an echo server on io_uring alone.", &options);
  if ((options.buffers & (options.buffers - 1)) != 0)
    peer_die("--buffers: not a power of two", EINVAL);
  const struct server server = {.options = &options, .stop_fd = peer_stop_fd(options.seconds)};
  peer_run_threads(options.threads, serve, (void*)&server);
  return 0;
}
