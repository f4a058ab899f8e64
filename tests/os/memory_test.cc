// Regions and guards: what is mapped, what faults, and what a failing call leaves behind.
#include "runtime/os/memory.h"

#include <cerrno>
#include <cstring>

#include <sys/mman.h>

#include <catch2/catch.hpp>

#include "runtime/base/sanitizer.h"
#include "runtime/os/system.h"
#include "tests/death.h"
#include "tests/maps.h"

namespace {

using namespace weft;
using os::system::Call;

constexpr std::size_t kRegionBytes = std::size_t{16} << 20;

struct MappedRegion {
  MappedRegion() { REQUIRE(os::map_region(kRegionBytes, "weft test", region) == 0); }
  ~MappedRegion() { os::unmap_region(region); }
  std::byte* at(std::size_t offset) const { return region.base + offset; }
  // False where the kernel has no guards by advice: then the test says so and ends.
  bool guard(std::byte* address, std::size_t bytes) const {
    const int error = os::advise_guard(region, address, bytes);
    if (error == -EINVAL) WARN("skipped: this kernel has no MADV_GUARD_INSTALL (Linux 6.13)");
    return error == 0;
  }
  os::Region region;
};

}  // namespace

TEST_CASE("memory: a region is writable, empty and one mapping", "[memory]") {
  const MappedRegion mapped;
  CHECK(mapped.region.bytes == kRegionBytes);
  CHECK(*mapped.at(kRegionBytes - 1) == std::byte{0});
  *mapped.at(0) = std::byte{1};
  CHECK(test::mappings_in(mapped.region.base, kRegionBytes) == 1);
}

TEST_CASE("memory: released pages read as zero", "[memory]") {
  const MappedRegion mapped;
  std::memset(mapped.at(0), 0x5a, 3 * os::kPageBytes);
  REQUIRE(os::release_pages(mapped.at(os::kPageBytes), os::kPageBytes) == 0);
  CHECK(*mapped.at(os::kPageBytes - 1) == std::byte{0x5a});
  CHECK(*mapped.at(os::kPageBytes) == std::byte{0});
  CHECK(*mapped.at(2 * os::kPageBytes) == std::byte{0x5a});
}

TEST_CASE("memory: a guard by advice faults, after release and in a forked child too",
          "[memory][G6]") {
  const MappedRegion mapped;
  if (!mapped.guard(mapped.at(os::kPageBytes), os::kPageBytes)) return;
  CHECK(test::faults(mapped.at(os::kPageBytes)));
  CHECK(test::faults(mapped.at(2 * os::kPageBytes - 1)));
  CHECK_FALSE(test::faults(mapped.at(os::kPageBytes - 1)));
  CHECK_FALSE(test::faults(mapped.at(2 * os::kPageBytes)));
  REQUIRE(os::release_pages(mapped.region.base, kRegionBytes) == 0);
  CHECK(test::faults(mapped.at(os::kPageBytes)));
}

TEST_CASE("memory: four thousand guards by advice leave one mapping", "[memory]") {
  const MappedRegion mapped;
  for (std::size_t offset = 0; offset < kRegionBytes; offset += 2 * os::kPageBytes) {
    if (!mapped.guard(mapped.at(offset), os::kPageBytes)) return;
  }
  CHECK(test::mappings_in(mapped.region.base, kRegionBytes) == 1);
}

TEST_CASE("memory: a guard by protection faults and splits the mapping", "[memory]") {
  const MappedRegion mapped;
  REQUIRE(os::protect_guard(mapped.at(os::kPageBytes), os::kPageBytes) == 0);
  CHECK(test::faults(mapped.at(os::kPageBytes)));
  CHECK_FALSE(test::faults(mapped.at(2 * os::kPageBytes)));
  CHECK(test::mappings_in(mapped.region.base, kRegionBytes) == 1 + os::kMapsPerProtectedGuard);
}

TEST_CASE("memory: in a process with locked memory a region is neither filled nor without guards",
          "[memory]") {
  if (base::kAsan || base::kTsan) return;  // their mlockall does nothing
  const auto child = test::death_of([] {
    if (mlockall(MCL_FUTURE) != 0) _exit(77);
    os::Region region;
    if (os::map_region(std::size_t{4} << 30, "weft test", region) != 0) _exit(77);
    if (test::status_kib("VmRSS:") > (512 << 10)) _exit(1);
    if (os::advise_guard(region, region.base, os::kPageBytes) == -EINVAL) _exit(77);
    // Locked again behind our back, as by a later mlockall(MCL_CURRENT).
    if (mlock(region.base + os::kPageBytes * 4, os::kPageBytes) != 0) _exit(77);
    std::byte* const second = region.base + os::kPageBytes * 4;
    if (os::advise_guard(region, second, os::kPageBytes) != 0) _exit(2);
    _exit(test::faults(second) ? 0 : 3);
  });
  if (child.status == 77) {
    WARN("skipped: memory may not be locked here, or the kernel has no MADV_GUARD_INSTALL");
    return;
  }
  CHECK(child.signal == 0);
  CHECK(child.status == 0);
}

TEST_CASE("memory: a call that fails is reported, and leaves nothing mapped", "[memory][G4]") {
  const auto call = GENERATE(Call::kMmap, Call::kMprotect);
  const std::size_t before = test::mapping_count();
  os::Region region;
  os::system::arm_fault(call, 0, ENOMEM);
  const int error = os::map_region(kRegionBytes, "weft test", region);
  os::system::disarm_faults();
  CHECK(error == -ENOMEM);
  CHECK(region.base == nullptr);
  CHECK(test::mapping_count() == before);
}

TEST_CASE("memory: what the kernel may refuse does not fail a region", "[memory]") {
  const auto call = GENERATE(Call::kMadvise, Call::kPrctl, Call::kMunlock);
  os::Region region;
  os::system::arm_fault(call, 0, EINVAL);
  CHECK(os::map_region(kRegionBytes, "weft test", region) == 0);
  os::system::disarm_faults();
  CHECK(os::unmap_region(region) == 0);
}

TEST_CASE("memory: the limit of mappings is read from the kernel", "[memory]") {
  CHECK(os::map_count_limit() >= 1024);
}
