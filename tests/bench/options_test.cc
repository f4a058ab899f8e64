#include "bench/load/options.h"

#include <string>
#include <vector>

#include <catch2/catch.hpp>

namespace weft::bench {
namespace {

ParseResult parse(std::vector<std::string> words) {
  words.insert(words.begin(), "echo_load");
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  return parse_options(static_cast<int>(words.size()), argv.data());
}

TEST_CASE("options: flags take their value after a space or after =", "[options]") {
  const ParseResult result =
      parse({"--port", "7000", "--connections=500", "--seconds", "0.25", "--json"});
  REQUIRE(result.parsed == Parsed::kRun);
  CHECK(result.options.port == 7000);
  CHECK(result.options.connections == 500);
  CHECK(result.options.seconds == 0.25);
  CHECK(result.options.json);
}

TEST_CASE("options: the limit in time depends on what ends the load", "[options]") {
  CHECK(parse({"--port", "1"}).options.seconds == 5);
  CHECK(parse({"--port", "1", "--count", "10"}).options.seconds == 60);
  CHECK(parse({"--port", "1", "--drain-check"}).options.seconds == 30);
  CHECK(parse({"--port", "1", "--count", "10", "--seconds", "2"}).options.seconds == 2);
}

TEST_CASE("options: a complaint names the flag and what it wants", "[options]") {
  struct Row {
    std::vector<std::string> words;
    std::string error;
  };
  const Row rows[] = {
      {{}, "--port is required"},
      {{"--port", "0"}, "--port 0: expected a whole number from 1 to 65535"},
      {{"--port", "65536"}, "--port 65536: expected a whole number from 1 to 65535"},
      {{"--port", "80x"}, "--port 80x: expected a whole number from 1 to 65535"},
      {{"--port", ""}, "--port : expected a whole number from 1 to 65535"},
      {{"--port", "-1"}, "--port -1: expected a whole number from 1 to 65535"},
      {{"--port", "1", "--seconds", "nan"},
       "--seconds nan: expected seconds above 0, at most a day"},
      {{"--port", "1", "--seconds", "0"}, "--seconds 0: expected seconds above 0, at most a day"},
      {{"--port", "1", "--warmup", "-1"}, "--warmup -1: expected seconds, at most a day"},
      {{"--port"}, "--port needs a value"},
      {{"--port", "1", "--speed", "9"}, "unknown or ambiguous flag --speed"},
      {{"--port", "1", "now"}, "unexpected argument now"},
      {{"--port", "1", "--threads", "2", "--connections", "1"},
       "--threads must not exceed --connections"},
      {{"--port", "1", "--count", "1", "--warmup", "1"}, "--count and --warmup exclude each other"},
      {{"--port", "1", "--count", "1", "--drain-check"},
       "--count and --drain-check exclude each other"},
      {{"--port", "1", "--terminate-after", "1"},
       "--terminate-after needs --drain-check and --server-pid"},
  };
  for (const Row& row : rows) {
    const ParseResult result = parse(row.words);
    CHECK(result.parsed == Parsed::kWrong);
    CHECK(result.error == row.error);
  }
}

TEST_CASE("options: help wins over what is missing", "[options]") {
  CHECK(parse({"--help"}).parsed == Parsed::kHelp);
}

TEST_CASE("options: a seed that is given is kept", "[options]") {
  CHECK(parse({"--port", "1", "--seed", "42"}).options.seed == 42);
}

}  // namespace
}  // namespace weft::bench
