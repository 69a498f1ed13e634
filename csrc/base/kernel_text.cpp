#include "base/kernel_text.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <system_error>

#include "base/unique_fd.h"

namespace s3io {
namespace {

constexpr size_t kMostBytes = size_t{4} << 20;  // mounts of a node with thousands of containers

}  // namespace

std::string read_kernel_text(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string text;
  std::array<char, 4096> part{};
  while (fd.valid() && text.size() < kMostBytes) {
    const ssize_t count = ::read(fd.get(), part.data(), part.size());
    if (count <= 0) break;
    text.append(part.data(), static_cast<size_t>(count));
  }
  return text;
}

std::optional<std::string_view> take_until(std::string_view& text, char separator) {
  if (text.empty()) return std::nullopt;
  const size_t end = text.find(separator);
  const std::string_view part = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return part;
}

std::optional<int64_t> number_in(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) return std::nullopt;
  return number;
}

std::optional<int64_t> number_after(std::string_view text, std::string_view key) {
  while (const auto line = take_until(text, '\n')) {
    if (line->starts_with(key)) return number_in(line->substr(key.size()));
  }
  return std::nullopt;
}

}  // namespace s3io
