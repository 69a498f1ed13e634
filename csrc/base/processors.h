// How many of the machine's processors are for whom.
#pragma once

namespace s3io {

// That this process may run on (sched_getaffinity); at least 1.
int available_processors();

// Threads with which each of so many processes may copy at the same time: its share of the
// processors, at least 1, and no more than memory keeps busy.
int copiers_for(int processes);

}  // namespace s3io
