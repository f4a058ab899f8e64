// Runs the program echo_load against servers that do one thing wrong, and looks at what
// it says.
#include <cstdio>
#include <cstdlib>
#include <string>

#include <sys/wait.h>

#include <catch2/catch.hpp>

#include "tests/bench/wayward_server.h"

namespace weft::bench {
namespace {

struct Outcome {
  int status = -1;
  std::string text;  // both of its outputs
};

Outcome run_echo_load(std::uint16_t port, const std::string& flags) {
  const std::string command = std::string(std::getenv("WEFT_ECHO_LOAD")) + " --port " +
                              std::to_string(port) + " --size " +
                              std::to_string(WaywardServer::kRequestBytes) + " " + flags + " 2>&1";
  Outcome outcome;
  FILE* output = popen(command.c_str(), "r");
  REQUIRE(output != nullptr);
  char buffer[4096];
  while (const std::size_t n = std::fread(buffer, 1, sizeof buffer, output)) {
    outcome.text.append(buffer, n);
  }
  const int status = pclose(output);
  if (WIFEXITED(status)) outcome.status = WEXITSTATUS(status);
  return outcome;
}

// Slow machines must not look like stalls, so the limit is far off where none is meant.
const std::string kLoad = "--connections 4 --count 1000 --seconds 300 --stall 200 ";

bool says(const Outcome& outcome, const std::string& words) {
  return outcome.text.find(words) != std::string::npos;
}

TEST_CASE("echo_load: finds nothing wrong with an honest server", "[echo_load]") {
  WaywardServer server(Mischief::kNone);
  const std::string more =
      GENERATE("", "--pipeline 8", "--threads 2", "--idle 3", "--max-connect-rate 1000");
  const Outcome outcome = run_echo_load(server.port(), kLoad + more);
  INFO(outcome.text);
  CHECK(outcome.status == 0);
  CHECK(says(outcome, "requests    1000 in"));
  CHECK(says(outcome, "errors      0\n"));
}

TEST_CASE("echo_load: finds a byte that was changed, lost, repeated or made up", "[echo_load]") {
  struct Row {
    Mischief mischief;
    std::string words;
  };
  const auto row = GENERATE(Row{Mischief::kFlip, "wrong byte: connection"},
                            Row{Mischief::kDrop, "1 bytes are missing before it"},
                            Row{Mischief::kRepeat, "the last 8 bytes came twice"},
                            Row{Mischief::kSurplus, "more bytes than were sent"});
  WaywardServer server(row.mischief);
  const Outcome outcome = run_echo_load(server.port(), kLoad);
  INFO(outcome.text);
  CHECK(outcome.status == 1);
  CHECK(says(outcome, row.words));
  CHECK(says(outcome, "  wrong_bytes 1\n"));
  CHECK(says(outcome, "errors      1\n"));
}

TEST_CASE("echo_load: names the connection to which swapped bytes belong", "[echo_load]") {
  WaywardServer server(Mischief::kSwap);
  const Outcome outcome = run_echo_load(server.port(), kLoad);
  INFO(outcome.text);
  CHECK(outcome.status == 1);
  CHECK(says(outcome, "it belongs to connection"));
  CHECK(says(outcome, "  wrong_bytes 2\n"));
}

TEST_CASE("echo_load: counts connections that the server ends while they are in use",
          "[echo_load]") {
  WaywardServer closing(Mischief::kClose);
  const Outcome closed = run_echo_load(closing.port(), kLoad);
  INFO(closed.text);
  CHECK(closed.status == 1);
  CHECK(says(closed, "  early_closes 1\n"));

  WaywardServer resetting(Mischief::kReset);
  const Outcome reset = run_echo_load(resetting.port(), kLoad);
  INFO(reset.text);
  CHECK(reset.status == 1);
  CHECK(says(reset, "  resets 1\n"));
}

TEST_CASE("echo_load: ends by itself when replies stop coming", "[echo_load]") {
  WaywardServer server(Mischief::kStall);
  const Outcome outcome = run_echo_load(server.port(), "--connections 1 --count 1000 --stall 0.3");
  INFO(outcome.text);
  CHECK(outcome.status == 1);
  CHECK(says(outcome, "  stalls 1\n"));
}

TEST_CASE("echo_load: says when nobody listens", "[echo_load]") {
  std::uint16_t port = 0;
  {
    const WaywardServer gone(Mischief::kNone);
    port = gone.port();
  }
  const Outcome outcome = run_echo_load(port, kLoad);
  INFO(outcome.text);
  CHECK(outcome.status == 1);
  CHECK(says(outcome, "Connection refused"));
  CHECK(says(outcome, "  not_connected 4\n"));
}

TEST_CASE("echo_load: the drain check passes when every connection ends between replies",
          "[echo_load][drain]") {
  WaywardServer server(Mischief::kDrain);
  const Outcome outcome =
      run_echo_load(server.port(), "--connections 4 --drain-check --stall 200 --seconds 300");
  INFO(outcome.text);
  CHECK(outcome.status == 0);
  CHECK(says(outcome, "0 replies cut"));
}

TEST_CASE("echo_load: the drain check counts a reply that was cut", "[echo_load][drain]") {
  WaywardServer server(Mischief::kCut);
  const Outcome outcome =
      run_echo_load(server.port(), "--connections 1 --drain-check --stall 200 --seconds 300");
  INFO(outcome.text);
  CHECK(outcome.status == 1);
  CHECK(says(outcome, "1 replies cut"));
}

TEST_CASE("echo_load: the drain check ends when the server does not", "[echo_load][drain]") {
  WaywardServer server(Mischief::kNone);
  const Outcome outcome =
      run_echo_load(server.port(), "--connections 4 --drain-check --seconds 0.3");
  INFO(outcome.text);
  CHECK(outcome.status == 1);
  CHECK(says(outcome, "the server has not ended 4 connections"));
}

TEST_CASE("echo_load: wrong usage is status 2", "[echo_load]") {
  CHECK(run_echo_load(1, "--connections none").status == 2);
  CHECK(run_echo_load(1, "--address nowhere").status == 2);
}

}  // namespace
}  // namespace weft::bench
