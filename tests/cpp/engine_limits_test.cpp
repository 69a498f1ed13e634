// What engines do where the kernel or the limits forbid something. Each in a forked child, since
// none of these can be undone.
#include <doctest/doctest.h>
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <cerrno>

#include "forbid.h"
#include "io/io_engine.h"
#include "leak_check.h"
#include "memory/slab.h"
#include "testing.h"

namespace s3io::testing::engine_limits_test {

void set_limit(int resource, rlim_t value) {
  const rlimit limit{.rlim_cur = value, .rlim_max = value};
  require_in_child(::setrlimit(static_cast<__rlimit_resource>(resource), &limit) == 0, "setrlimit");
}

void drop_capability(unsigned capability) {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct sets[2] = {};
  require_in_child(::syscall(SYS_capget, &header, sets) == 0, "capget");
  sets[CAP_TO_INDEX(capability)].effective &= ~CAP_TO_MASK(capability);
  sets[CAP_TO_INDEX(capability)].permitted &= ~CAP_TO_MASK(capability);
  require_in_child(::syscall(SYS_capset, &header, sets) == 0, "capset");
}

std::string error_of_uring(const std::string& part) {
  try {
    make_engine({.kind = EngineKind::uring, .depth = 4});
  } catch (const Error& error) {
    const std::string text = error.what();
    if (error.kind() != ErrorKind::engine) return "wrong kind: " + text;
    return text.find(part) == std::string::npos ? "'" + part + "' is missing: " + text : "";
  }
  return "io_uring was not refused";
}

// Reads the test program's own first bytes through the engine: every ELF file begins with these.
void check_reads(IoEngine& engine, std::byte* data, int buffer_index) {
  const UniqueFd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  IoRequest request{.fd = file.get(), .data = data, .length = 4, .buffer_index = buffer_index};
  IoRequest* pointer = &request;
  engine.submit({&pointer, 1});
  IoRequest* done = nullptr;
  require_in_child(engine.wait({&done, 1}, 1, milliseconds(30'000)) == 1, "the read is lost");
  require_in_child(request.result == 4, "the read failed");
  require_in_child(std::memcmp(data, "\177ELF", 4) == 0, "wrong bytes");
}

TEST_CASE("where seccomp forbids io_uring, auto takes threads and uring is a typed error") {
  const LeakCheck leaks;
  for (const unsigned error_number : {EPERM, ENOSYS, EACCES}) {
    CHECK(run_in_child([error_number] {
            forbid(SYS_io_uring_setup, error_number);
            const std::string failure = error_of_uring("io_uring is not available");
            require_in_child(failure.empty(), failure);
            require_in_child(!uring_unavailable_reason().empty(), "no reason is given");
            const auto engine = make_engine({.kind = EngineKind::automatic, .depth = 1});
            require_in_child(engine->name() == "threads", "auto did not take threads");
            std::byte data[4];
            check_reads(*engine, data, -1);
          }) == "");
  }
}

TEST_CASE("where a ring can be made but not used, auto takes threads") {
  if (!has_uring()) return;
  CHECK(run_in_child([] {
          forbid(SYS_io_uring_enter, EPERM);
          std::byte data[4];
          const auto engine = make_engine({.kind = EngineKind::automatic, .depth = 1});
          require_in_child(engine->name() == "threads", "auto did not take threads");
          check_reads(*engine, data, -1);
          const std::string failure = error_of_uring("EPERM");
          require_in_child(failure.empty(), failure);
        }) == "");
}

TEST_CASE("where no descriptor is left for a ring, uring is a typed error") {
  if (!has_uring()) return;
  CHECK(run_in_child([] {
          set_limit(RLIMIT_NOFILE, 3);
          const std::string failure = error_of_uring("EMFILE");
          require_in_child(failure.empty(), failure);
        }) == "");
}

TEST_CASE("where no memory may be locked, auto takes threads and uring says so or works") {
  if (!has_uring()) return;
  CHECK(run_in_child([] {
          drop_capability(CAP_IPC_LOCK);
          set_limit(RLIMIT_MEMLOCK, 0);
          std::byte data[4];
          check_reads(*make_engine({.kind = EngineKind::automatic, .depth = 1}), data, -1);
          if (!has_uring()) {  // some kernels count the ring itself
            const std::string failure = error_of_uring("ulimit -l");
            require_in_child(failure.empty(), failure);
          }
        }) == "");
}

TEST_CASE("where the limit of locked memory is too low, reads work without registered buffers") {
  if (!has_uring()) return;
  CHECK(run_in_child([] {
          constexpr int64_t kBytes = 4 << 20;
          drop_capability(CAP_IPC_LOCK);
          set_limit(RLIMIT_MEMLOCK, 1 << 20);  // enough for a ring, not for a buffer
          const auto engine = make_engine({.kind = EngineKind::uring, .depth = 1});
          Slab slab({2, kBytes, 4096});
          for (const int slot : {0, 1}) {
            slab.prepare(slot, slab.slot_bytes());
            const bool registered = engine->register_buffer(slot, {slab.slot_data(slot), kBytes});
            require_in_child(!registered, "a buffer was registered beyond the limit");
            check_reads(*engine, slab.slot_data(slot), slot);
          }
        }) == "");
}

}  // namespace s3io::testing::engine_limits_test
