#include "peer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

_Noreturn void peer_die(const char* operation, int error) {
  fprintf(stderr, "%s: %s\n", operation, strerror(error));
  exit(1);
}

static unsigned read_number(const char* flag, const char* text, unsigned long least,
                            unsigned long most) {
  char* end;
  errno = 0;
  const unsigned long value = strtoul(text, &end, 10);
  if (errno != 0 || *text < '0' || *text > '9' || *end != '\0' || value < least || value > most) {
    fprintf(stderr, "--%s %s: expected a whole number from %lu to %lu\n", flag, text, least, most);
    exit(2);
  }
  return (unsigned)value;
}

void peer_parse_options(int argc, char** argv, const char* what, struct peer_options* options) {
  enum { kAddress, kPort, kThreads, kSeconds, kBuffers, kBufferBytes, kHelp };
  static const struct option flags[] = {
      {"address", required_argument, NULL, kAddress},
      {"port", required_argument, NULL, kPort},
      {"threads", required_argument, NULL, kThreads},
      {"seconds", required_argument, NULL, kSeconds},
      {"buffers", required_argument, NULL, kBuffers},
      {"buffer-bytes", required_argument, NULL, kBufferBytes},
      {"help", no_argument, NULL, kHelp},
      {NULL, 0, NULL, 0},
  };
  for (int flag; (flag = getopt_long(argc, argv, "", flags, NULL)) != -1;) {
    switch (flag) {
      case kAddress:
        options->address = optarg;
        break;
      case kPort:
        options->port = (uint16_t)read_number("port", optarg, 1, 65535);
        break;
      case kThreads:
        options->threads = read_number("threads", optarg, 1, 1024);
        break;
      case kSeconds:
        options->seconds = read_number("seconds", optarg, 1, 86400);
        break;
      case kBuffers:
        options->buffers = read_number("buffers", optarg, 1, 32768);
        break;
      case kBufferBytes:
        options->buffer_bytes = read_number("buffer-bytes", optarg, 64, 1 << 20);
        break;
      case kHelp:
        printf(
            "%s\n\n"
            "  --port P           required\n"
            "  --address A        numeric IPv4 address (%s)\n"
            "  --threads N        (%u)\n"
            "  --seconds S        end after so long (%u)\n"
            "  --buffers N        of each thread, where the server keeps a pool (%u)\n"
            "  --buffer-bytes N   (%u)\n",
            what, options->address, options->threads, options->seconds, options->buffers,
            options->buffer_bytes);
        exit(0);
      default:
        exit(2); /* getopt_long has said why */
    }
  }
  if (optind < argc || options->port == 0) {
    fprintf(stderr, "%s: --port is required, and there are no other arguments; see --help\n",
            argv[0]);
    exit(2);
  }
}

int peer_listen(const struct peer_options* options) {
  const int on = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(options->port)};
  if (inet_pton(AF_INET, options->address, &address.sin_addr) != 1) peer_die("--address", EINVAL);
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) peer_die("socket", errno);
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0) {
    peer_die("setsockopt", errno);
  }
  /* Only where it is needed: it would hide that another server already holds the port.
   * */
  if (options->threads > 1 && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0) {
    peer_die("setsockopt", errno);
  }
  if (bind(fd, (struct sockaddr*)&address, sizeof address) != 0) peer_die("bind", errno);
  if (listen(fd, SOMAXCONN) != 0) peer_die("listen", errno);
  return fd;
}

int peer_stop_fd(unsigned seconds) {
  /* All three are blocked in every thread and so stay pending; a signalfd shows what is
   * pending for the whole process to whoever asks. */
  sigset_t ending;
  sigemptyset(&ending);
  sigaddset(&ending, SIGTERM);
  sigaddset(&ending, SIGINT);
  sigaddset(&ending, SIGALRM);
  const int error = pthread_sigmask(SIG_BLOCK, &ending, NULL);
  if (error != 0) peer_die("pthread_sigmask", error);
  const int fd = signalfd(-1, &ending, SFD_NONBLOCK | SFD_CLOEXEC);
  if (fd < 0) peer_die("signalfd", errno);
  alarm(seconds);
  return fd;
}

unsigned peer_raise_descriptor_limit(void) {
  const rlim_t most = 1u << 20; /* tables are indexed by descriptor */
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) peer_die("getrlimit", errno);
  limit.rlim_cur = limit.rlim_max < most ? limit.rlim_max : most;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) peer_die("setrlimit", errno);
  return (unsigned)limit.rlim_cur;
}

void peer_run_threads(unsigned threads, void* (*serve)(void*), void* argument) {
  pthread_t* others = calloc(threads, sizeof *others);
  if (others == NULL) peer_die("calloc", ENOMEM);
  for (unsigned i = 1; i < threads; ++i) {
    const int error = pthread_create(&others[i], NULL, serve, argument);
    if (error != 0) peer_die("pthread_create", error);
  }
  serve(argument);
  for (unsigned i = 1; i < threads; ++i) pthread_join(others[i], NULL);
  free(others);
}
