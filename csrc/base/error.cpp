#include "base/error.h"

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/limits.h"

namespace s3io {

void append(std::string& text, double part) {
  char digits[32];
  std::snprintf(digits, sizeof(digits), "%g", part);
  text += digits;
}

std::string errno_text(int error_number) {
  const char* name = strerrorname_np(error_number);
  const char* description = strerrordesc_np(error_number);
  if (name == nullptr || description == nullptr) return message("error number ", error_number);
  return message(name, " (", description, ")");
}

ErrorKind kind_of_errno(int error_number) {
  switch (error_number) {
    case ENOENT:
    case ENOTDIR:
      return ErrorKind::not_found;
    case EACCES:
    case EPERM:
    case EROFS:
      return ErrorKind::access;
    case EISDIR:
    case ELOOP:
    case ENAMETOOLONG:
      return ErrorKind::config;
    case ENOMEM:
    case EMFILE:
    case ENFILE:
      return ErrorKind::out_of_memory;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return ErrorKind::no_space;
    case ESTALE:
      return ErrorKind::file_changed;
    default:
      return ErrorKind::read;
  }
}

bool may_be_filtered(int error_number) {
  return error_number == EPERM || error_number == ENOSYS || error_number == EACCES;
}

std::string filter_hint(int error_number, std::string_view system_call) {
  if (!may_be_filtered(error_number)) return "";
  return message("; a container's filter (seccomp) refuses ", system_call,
                 ", or the kernel has no such call: allow it in the profile (docker run "
                 "--security-opt seccomp=profile.json)");
}

Error error_from_errno(int error_number, std::string_view action, std::string_view path) {
  std::string hint = limit_hint(error_number);
  if (error_number == EMFILE) {
    append(hint, ", or lower batch_size: a batch keeps its files open while it is read");
  }
  return Error(kind_of_errno(error_number),
               message(path, ": cannot ", action, ": ", errno_text(error_number), hint));
}

Error write_error_from_errno(int error_number, std::string_view action, std::string_view path) {
  std::string hint = limit_hint(error_number);
  if (error_number == ENOSPC) hint = "; free some space there";
  if (error_number == EDQUOT) hint = "; free some space there, or raise the quota";
  const ErrorKind kind = kind_of_errno(error_number);
  return Error(kind == ErrorKind::read ? ErrorKind::write : kind,
               message(path, ": cannot ", action, ": ", errno_text(error_number), hint));
}

}  // namespace s3io
