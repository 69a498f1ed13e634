// What to do about a limit of this process that a call ran into.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"

namespace s3io {

// "; raise the limit of ..., now ... (ulimit ...)" where `error_number` comes from a limit that
// this process has, else empty. Of a call that opens a file, makes one longer, or maps memory.
std::string limit_hint(int error_number);

// Error(out_of_memory): "cannot start <what>: ..." and the limits that a thread counts for.
Error thread_error(std::string_view what, int error_number);

}  // namespace s3io
