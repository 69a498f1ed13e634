// What control groups leave of the memory and the processors, in trees as containers, Slurm,
// Kubernetes and systemd make them.
#include "base/cgroup.h"

#include <doctest/doctest.h>

#include <limits>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "base/kernel_text.h"
#include "base/processors.h"
#include "memory/available_memory.h"
#include "testing.h"

namespace s3io::testing::cgroup_test {

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr const char* kUnified =
    "30 23 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
constexpr const char* kV1 =
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw shared:1 master:2 - cgroup cgroup rw,memory\n";

// A machine with so much memory, below a folder.
class Machine {
 public:
  Machine(const std::string& groups, const std::string& mounts, int64_t available_mib = 1000,
          int64_t free_swap_mib = 0) {
    set("/proc/self/cgroup", groups);
    set("/proc/self/mountinfo", mounts);
    set("/proc/meminfo",
        message("MemTotal:       99999999 kB\nMemAvailable:   ", available_mib * 1024,
                " kB\nSwapFree:         ", free_swap_mib * 1024, " kB\n"));
  }

  std::string root() const { return folder_.path("root"); }
  void set(const std::string& path, const std::string& text) {
    const std::filesystem::path file = root() + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  void set_v2(const std::string& group, const std::string& limit, int64_t usage_mib,
              const std::map<std::string, int64_t>& stat_mib = {}) {
    const std::string folder = "/sys/fs/cgroup" + group;
    set(folder + "/memory.max", limit + "\n");
    set(folder + "/memory.current", std::to_string(usage_mib * kMiB) + "\n");
    set(folder + "/memory.stat", stat_text(stat_mib));
  }
  void set_v1(const std::string& group, int64_t limit_mib, int64_t usage_mib,
              const std::map<std::string, int64_t>& stat_mib = {}) {
    const std::string folder = "/sys/fs/cgroup/memory" + group;
    set(folder + "/memory.limit_in_bytes", std::to_string(limit_mib * kMiB) + "\n");
    set(folder + "/memory.usage_in_bytes", std::to_string(usage_mib * kMiB) + "\n");
    set(folder + "/memory.stat", stat_text(stat_mib));
  }
  int64_t available_mib() const { return available_memory(root()).bytes / kMiB; }
  int64_t with_swap_mib() const { return available_memory(root()).with_swap_bytes / kMiB; }

 private:
  static std::string stat_text(const std::map<std::string, int64_t>& stat_mib) {
    std::string text;
    for (const auto& [key, mib] : stat_mib) text += message(key, ' ', mib * kMiB, '\n');
    return text;
  }

  TemporaryFolder folder_;
};

std::string mib(int64_t count) { return std::to_string(count * kMiB); }

TEST_CASE("without limits the machine's own memory counts") {
  Machine machine("0::/user.slice\n", kUnified, 700);
  CHECK(machine.available_mib() == 700);
  machine.set_v2("/user.slice", "max", 5000);
  CHECK(machine.available_mib() == 700);
  CHECK(memory_limit_bytes(machine.root()) == std::nullopt);
}

TEST_CASE("cgroup v2: page cache, active or not, and caches of the kernel are available") {
  Machine machine("0::/job\n", kUnified);
  const std::map<std::string, int64_t> stat{
      {"anon", 100},           {"file", 390},         {"shmem", 30},  {"inactive_file", 200},
      {"active_file", 150},    {"unevictable", 10},   {"slab", 60},   {"slab_reclaimable", 40},
      {"inactive_anon", 1000}, {"file_mapped", 1000}, {"sock", 1000},
  };
  machine.set_v2("/job", mib(500), 495, stat);
  CHECK(machine.available_mib() == 500 - (495 - 200 - 150 - 40));
  CHECK(memory_limit_bytes(machine.root()) == 500 * kMiB);
}

TEST_CASE("cgroup v1: what the groups below cache counts as well") {
  Machine machine("9:name=systemd:/x\n4:memory:/slurm/job/step\n0::/x\n", kV1);
  // Of the job itself nothing is cached: all of it is its step's.
  machine.set_v1("/slurm/job", 500, 480,
                 {{"inactive_file", 0},
                  {"active_file", 0},
                  {"total_inactive_file", 250},
                  {"total_active_file", 130},
                  {"total_inactive_anon", 77}});
  CHECK(machine.available_mib() == 500 - 100);
  machine.set("/sys/fs/cgroup/memory/slurm/job/memory.kmem.usage_in_bytes", mib(40));
  CHECK(machine.available_mib() == 500 - 60);
}

TEST_CASE("the limit may be that of any group above") {
  Machine v2("0::/a/b/c\n", kUnified);
  Machine v1("4:memory:/a/b/c\n", kV1);
  for (const std::string group : {"", "/a", "/a/b", "/a/b/c"}) {
    v2.set_v2(group, mib(400), 100);
    v1.set_v1(group, 400, 100);
    CHECK(v2.available_mib() == 300);
    CHECK(v1.available_mib() == 300);
    CHECK(memory_limit_bytes(v1.root()) == 400 * kMiB);
    v2.set_v2(group, "max", 100);
    v1.set_v1(group, std::numeric_limits<int64_t>::max() / 4096 * 4096 / kMiB, 100);
    CHECK(v2.available_mib() == 1000);
    CHECK(v1.available_mib() == 1000);
    CHECK(memory_limit_bytes(v1.root()) == std::nullopt);
  }
  v2.set_v2("/a", mib(700), 100);
  v2.set_v2("/a/b", mib(300), 50);
  v2.set_v2("/a/b/c", mib(600), 20);
  CHECK(v2.available_mib() == 250);
  CHECK(memory_limit_bytes(v2.root()) == 300 * kMiB);
}

TEST_CASE("a container sees its own group at the top, or far below, or from outside") {
  // Docker with cgroup v1: the group has the host's name, and only its own part is mounted.
  Machine docker("4:memory:/docker/0123/inner\n",
                 "35 31 0:32 /docker/0123 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n");
  docker.set_v1("/inner", 800, 0);
  docker.set_v1("", 300, 100);
  CHECK(docker.available_mib() == 200);
  // A namespace that was entered after the mount: the mount shows a group above.
  Machine entered("0::/\n", "30 23 0:27 /.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
  entered.set_v2("", mib(300), 50);
  CHECK(entered.available_mib() == 250);
  // The same, and its own mount behind that one: a host's mount that is shown to a container.
  Machine both("0::/\n",
               "30 23 0:27 /../.. /host/sys/fs/cgroup ro - cgroup2 cgroup2 rw\n"
               "31 23 0:27 / /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n"
               "32 23 0:27 /.. /mnt/parent ro - cgroup2 cgroup2 rw\n");
  both.set_v2("", mib(300), 50);
  CHECK(both.available_mib() == 250);
  // Another group's part says nothing of this process.
  Machine other("0::/pod-1\n", "30 23 0:27 /pod-10 /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
  other.set_v2("", mib(300), 50);
  CHECK(other.available_mib() == 1000);
  // A process outside of its namespace's top.
  Machine outside("0::/../sibling\n", kUnified);
  outside.set_v2("", mib(300), 50);
  CHECK(outside.available_mib() == 250);
}

TEST_CASE("the mount that shows the most is looked at, wherever it is") {
  Machine machine("0::/a/b\n",
                  "50 1 0:27 /a/b /run/own rw - cgroup2 cgroup2 rw\n"
                  "51 1 0:27 / /mnt/all\\040groups\\134 rw - cgroup2 cgroup2 rw\n"
                  "52 1 0:27 /a /run/a rw - cgroup2 cgroup2 rw\n");
  machine.set("/mnt/all groups\\/a/memory.max", mib(200));
  CHECK(machine.available_mib() == 200);
}

TEST_CASE("swap counts apart, as far as the groups allow it") {
  Machine v2("0::/job\n", kUnified, 1000, 400);
  CHECK(v2.available_mib() == 1000);
  CHECK(v2.with_swap_mib() == 1400);
  v2.set_v2("/job", mib(500), 200);
  CHECK(v2.available_mib() == 300);
  CHECK(v2.with_swap_mib() == 700);
  v2.set("/sys/fs/cgroup/job/memory.swap.max", mib(100) + "\n");
  v2.set("/sys/fs/cgroup/job/memory.swap.current", mib(30) + "\n");
  CHECK(v2.with_swap_mib() == 370);
  v2.set("/sys/fs/cgroup/job/memory.swap.max", "0\n");
  CHECK(v2.with_swap_mib() == 300);

  Machine v1("4:memory:/job\n", kV1, 1000, 400);
  v1.set_v1("/job", 500, 200);
  CHECK(v1.with_swap_mib() == 700);
  v1.set("/sys/fs/cgroup/memory/job/memory.memsw.limit_in_bytes", mib(600) + "\n");
  v1.set("/sys/fs/cgroup/memory/job/memory.memsw.usage_in_bytes", mib(240) + "\n");
  CHECK(v1.with_swap_mib() == 300 + 60);
}

TEST_CASE("processors: the quotas of all groups count, of either version") {
  constexpr int kNoLimit = std::numeric_limits<int>::max();
  Machine v2("0::/pod/container\n", kUnified);
  CHECK(processors_of_cgroups(v2.root()) == kNoLimit);
  v2.set("/sys/fs/cgroup/pod/container/cpu.max", "max 100000\n");
  CHECK(processors_of_cgroups(v2.root()) == kNoLimit);
  v2.set("/sys/fs/cgroup/pod/cpu.max", "250000 100000\n");
  CHECK(processors_of_cgroups(v2.root()) == 3);
  v2.set("/sys/fs/cgroup/pod/container/cpu.max", "50000 100000\n");
  CHECK(processors_of_cgroups(v2.root()) == 1);

  Machine v1("3:cpu,cpuacct:/pod\n", kV1);
  v1.set("/sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_quota_us", "-1\n");
  v1.set("/sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_period_us", "100000\n");
  CHECK(processors_of_cgroups(v1.root()) == kNoLimit);
  v1.set("/sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_quota_us", "150000\n");
  CHECK(processors_of_cgroups(v1.root()) == 2);
}

TEST_CASE("numbers are read as the kernel writes them, and nothing else") {
  CHECK(number_in("42\n") == 42);
  CHECK(number_in("  \t42 kB") == 42);
  CHECK(number_in("-1") == -1);
  for (const char* text : {"", " ", "max", "+1", "x1", "9223372036854775808"}) {
    CHECK(number_in(text) == std::nullopt);
  }
  CHECK(number_after("ab 1\na 2\na 3", "a ") == 2);
  CHECK(number_after("ab 1", "a ") == std::nullopt);
  std::string_view text = "a,,b";
  std::vector<std::string> parts;
  while (const auto part = take_until(text, ',')) parts.emplace_back(*part);
  CHECK(parts == std::vector<std::string>{"a", "", "b"});
}

TEST_CASE("whatever the texts say, the answers lie within what an int64 holds") {
  std::mt19937_64 random(1);
  const std::vector<std::string> tokens{"0",
                                        "1",
                                        ":",
                                        "::",
                                        "/",
                                        "/..",
                                        " ",
                                        "\n",
                                        "-",
                                        " - ",
                                        "cgroup2",
                                        "cgroup",
                                        "memory",
                                        ",",
                                        "max",
                                        "-1",
                                        "9223372036854775807",
                                        "99999999999999999999",
                                        "4611686018427387903",
                                        "\\040",
                                        "\\",
                                        "inactive_file ",
                                        "total_active_file ",
                                        "slab_reclaimable ",
                                        "/sys"};
  const auto text = [&] {
    std::string made;
    for (auto left = random() % 30; left > 0; --left) made += tokens[random() % tokens.size()];
    return made;
  };
  for (int round = 0; round < rounds(20'000); ++round) {
    for (const Cgroup& cgroup : parse_cgroups(text(), text(), "memory")) {
      REQUIRE(cgroup.folder.size() < 10'000);
    }
    const CgroupMemory group{.limit = text(),
                             .usage = text(),
                             .stat = text(),
                             .swap_limit = text(),
                             .swap_usage = text(),
                             .kernel_usage = text(),
                             .unified = random() % 2 == 0};
    const auto swap =
        static_cast<int64_t>(random() % 3) * (std::numeric_limits<int64_t>::max() / 4);
    const std::optional<AvailableMemory> available = available_memory(group, swap);
    if (!available) continue;
    REQUIRE(available->bytes >= 0);
    REQUIRE(available->with_swap_bytes >= available->bytes);
  }
}

TEST_CASE("available memory is a number that this machine can have") {
  const AvailableMemory available = available_memory();
  CHECK(available.bytes > 0);
  CHECK(available.with_swap_bytes >= available.bytes);
  const std::string meminfo = read_kernel_text("/proc/meminfo");
  CHECK(available.bytes <= number_after(meminfo, "MemTotal:").value_or(0) * 1024);
  CHECK(memory_limit_bytes().value_or(1) > 0);
}

}  // namespace s3io::testing::cgroup_test
