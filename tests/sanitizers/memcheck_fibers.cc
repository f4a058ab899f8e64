// What valgrind_test.py runs: a hundred fibers that keep heap objects over a park, throw, sleep, and send each
// other, through the ring, what they then look at.
#include <weft/net.h>
#include <weft/runtime.h>
#include <weft/scope.h>
#include <weft/time.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr int kPairs = 50;
constexpr int kYields = 100;  // of each of a hundred fibers: 10,000 switches [A10]

absl::Status echo(weft::TcpStream& stream) {
  std::string text(32, '\0');
  absl::StatusOr<std::size_t> n = stream.read(text);
  if (!n.ok()) return n.status();
  return stream.write_all(text.substr(0, *n));
}

// True when the answer, every byte of which is looked at, is what was said.
bool talk(const std::string& address, int number) {
  const auto kept = std::make_unique<std::string>("client " + std::to_string(number));
  absl::StatusOr<weft::TcpStream> stream = weft::TcpStream::connect(address);
  if (!stream.ok() || !stream->write_all(*kept).ok()) return false;
  std::string answer(kept->size(), '\0');
  if (!stream->read_exactly(answer).ok()) return false;
  try {
    static_cast<void>(weft::sleep_for(absl::Microseconds(100)));
    throw std::runtime_error(answer);
  } catch (const std::runtime_error& error) {
    weft::this_fiber::yield();
    return *kept == error.what();
  }
}

absl::Status run() {
  auto listener = weft::TcpListener::bind("127.0.0.1:0");
  if (!listener.ok()) return listener.status();
  const std::string address = listener->local().to_string();
  weft::Scope scope;
  scope.spawn([&listener] { return weft::serve(*listener, &echo); });
  std::vector<weft::Fiber<bool>> clients;
  for (int i = 0; i < kPairs; ++i) {
    clients.push_back(scope.spawn([&address, i] { return talk(address, i); }));
  }
  for (auto& client : clients) {
    const absl::StatusOr<bool> same = client.join();
    if (!same.ok()) return same.status();
    if (!*same) return absl::DataLossError("another answer than what was said");
  }
  listener->close();
  weft::Scope yielding;
  for (int i = 0; i < 2 * kPairs; ++i) {
    yielding.spawn([] {
      for (int left = kYields; left > 0; --left) weft::this_fiber::yield();
    });
  }
  if (absl::Status status = yielding.join(); !status.ok()) return status;
  return scope.join();
}

}  // namespace

int main() { return weft::run(&run, {.workers = 2, .handle_signals = false}); }
