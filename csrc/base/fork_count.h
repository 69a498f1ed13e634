// Tells a process from its forked children without a system call.
#pragma once

#include <cstdint>

namespace s3io {

// Starts at 0 with the first call in a program, and is one more in every forked child. What
// remembers the value at its making belongs to the processes where it is still the same.
uint32_t fork_count();

}  // namespace s3io
