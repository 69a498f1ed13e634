// The control groups that limit this process: its own, and those above it. Slurm, Kubernetes and
// systemd set their limits at any of them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace s3io {

struct Cgroup {
  std::string folder;    // where its files are
  bool unified = false;  // cgroup v2; the files of v1 have other names
};

// The groups of a controller ("memory", "cpu"), the process's own first. `groups` and `mounts` are
// the texts of /proc/self/cgroup and /proc/self/mountinfo. A group that no mount shows is left out.
std::vector<Cgroup> parse_cgroups(std::string_view groups, std::string_view mounts,
                                  std::string_view controller);

// Those of this process. `root` stands before all paths; for tests.
std::vector<Cgroup> own_cgroups(std::string_view controller, const std::string& root = "");

}  // namespace s3io
