// How many of the machine's processors are for whom.
#pragma once

#include <cstdint>
#include <string>

namespace s3io {

// That this thread may run on (sched_getaffinity), and that its cgroups let it use (rounded up); at
// least 1.
int available_processors();

// As the quota of the process's cgroups and of those above them says (cpu.max; v1:
// cpu.cfs_quota_us), rounded up; the largest int where none sets one. `root` stands before all
// paths; for tests.
int processors_of_cgroups(const std::string& root = "");

// Threads with which each of so many processes may copy at the same time: its share of the
// processors, at least 1, and no more than it takes to saturate memory.
int copiers_for(int processes);

}  // namespace s3io
