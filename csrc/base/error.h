// The one error type of the core. Its kind decides the Python exception class; errno becomes text
// here and nowhere else.
#pragma once

#include <concepts>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

#include "base/printable.h"

namespace s3io {

enum class ErrorKind : uint8_t {
  config,          // a setting, or a combination of settings, that cannot work
  data,            // bytes on disk that are not what the layout says
  not_found,       // no such file, or nothing matched
  access,          // permission denied
  read,            // the device or the kernel failed a read
  write,           // the device or the kernel failed a write
  no_space,        // the disk, a quota or a limit of file sizes is exhausted
  exists,          // there is one of this name, and none was to be
  file_changed,    // truncated, replaced or rewritten while in use
  object_changed,  // the same of an object of S3
  direct_io,       // O_DIRECT was required and is not to be had
  engine,          // the I/O engine asked for is not to be had
  pool_timeout,    // no buffer became free in time
  read_timeout,    // a read did not come back in time
  write_timeout,   // a write did not come back in time
  range,           // a byte range or record number outside of what exists
  out_of_memory,   // memory, file descriptors or another bounded resource ran out
};

// Its text is one line: of the names of files and objects in it, control characters become escapes.
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& text, bool is_undone = false)
      : std::runtime_error(on_one_line(text)), kind_(kind), is_undone_(is_undone) {}
  ErrorKind kind() const { return kind_; }
  // Of a write: nothing of it is in place, nor will be. False where that is unknown.
  bool is_undone() const { return is_undone_; }

 private:
  ErrorKind kind_;
  bool is_undone_;
};

inline void append(std::string& text, std::string_view part) { text += part; }
inline void append(std::string& text, char part) { text += part; }
inline void append(std::string& text, std::integral auto part) { text += std::to_string(part); }
void append(std::string& text, double part);  // six significant digits

// Concatenates its arguments as text.
//
// Note: no iostreams in the core. PyTorch builds that carry parts of another libstdc++ make the
// number formatting of streams crash when both are loaded (seen: torch 2.11 with GCC 13).
template <typename... Parts>
std::string message(const Parts&... parts) {
  std::string text;
  (append(text, parts), ...);
  return text;
}

// "EIO (Input/output error)".
std::string errno_text(int error_number);

// The kind that describes `error_number` when it comes from opening or reading a file.
ErrorKind kind_of_errno(int error_number);

// Whether a system call that never fails so by itself was refused by a filter (seccomp): containers
// answer calls that they do not know with any of these.
bool may_be_filtered(int error_number);
// "; a container's filter (seccomp) ..." for such a call; empty where it failed in another way.
std::string filter_hint(int error_number, std::string_view system_call);

// Error "<path>: cannot <action>: <errno text>" with the matching kind.
Error error_from_errno(int error_number, std::string_view action, std::string_view path);
// The same for what is being written: kind `write` where that would be `read`.
Error write_error_from_errno(int error_number, std::string_view action, std::string_view path);

}  // namespace s3io
