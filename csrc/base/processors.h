// How many of the machine's processors are for whom.
#pragma once

#include <cstdint>
#include <string>

namespace s3io {

// That this thread may run on (sched_getaffinity), and that its cgroups let it use (cpu.max of
// cgroup v2, rounded up); at least 1.
int available_processors();

// As cpu.max of the cgroup and of those above it says; the largest int where none sets a limit.
// `root`: where cgroups are mounted; `group`: "/..." below it.
int processors_of_cgroup(const std::string& root, std::string group);

// Threads with which each of so many processes may copy at the same time: its share of the
// processors, at least 1, and no more than it takes to saturate memory.
int copiers_for(int processes);

}  // namespace s3io
