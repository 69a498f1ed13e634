#include "format/member_names.h"

#include <unordered_map>

#include "base/error.h"
#include "base/printable.h"

namespace s3io {
namespace {

constexpr size_t kNone = std::string_view::npos;

bool is_left_out(std::string_view name) {
  if (!name.starts_with("__")) return false;
  const size_t slash = name.find('/');
  const std::string_view first = name.substr(0, slash);
  const auto is_between = [](std::string_view part) {
    return part.size() >= 4 && part.ends_with("__");
  };
  if (slash != kNone) return is_between(first);
  // "$" is also before the newline that ends a text.
  const bool has_newline = first.ends_with('\n');
  return first.ends_with("__") || (has_newline && is_between(first.substr(0, first.size() - 1)));
}

// Behind the last slash before `end`.
size_t behind_slash(std::string_view name, size_t end) {
  const size_t slash = name.substr(0, end).rfind('/');
  return slash == kNone ? 0 : slash + 1;
}

}  // namespace

std::optional<MemberName> split_member_name(std::string_view name) {
  if (is_left_out(name)) return std::nullopt;
  // "." is no newline: the expression sees no folders behind one.
  size_t base = behind_slash(name, name.find('\n'));
  if (base > 0 && base < name.size() && name[base] == '.') {
    base = behind_slash(name, base - 1);  // of "a/.b" the key is "a/"
  }
  const size_t dot = name.find('.', base);
  if (dot == kNone || dot == base) return std::nullopt;
  const std::string_view extension = name.substr(dot + 1);
  if (extension.find('/') != kNone) return std::nullopt;
  return MemberName{name.substr(0, dot), extension};
}

SampleNames group_member_names(const std::string& path, const TarMembers& members) {
  SampleNames found;
  found.sample_of.assign(members.count(), -1);
  found.extension_of.assign(members.count(), -1);
  std::unordered_map<std::string_view, size_t> first_members;  // of each key
  std::unordered_map<std::string_view, int64_t> extensions;
  std::string_view key;
  for (size_t member = 0; member < members.count(); ++member) {
    const std::string_view name = members.name(member);
    const std::optional<MemberName> split = split_member_name(name);
    if (!split) continue;
    if (found.key_ends.empty() || split->key != key) {
      key = split->key;
      const auto [first, is_new] = first_members.emplace(key, member);
      if (!is_new) {
        throw Error(
            ErrorKind::data,
            message(path, ": the members of sample ", quoted(key),
                    " do not follow one another: ", quoted(members.name(first->second)),
                    " lies at byte ", members.offsets[first->second], ", ", quoted(name),
                    " at byte ", members.offsets[member],
                    ", with other samples between them; write the archive anew, sorted by name"));
      }
      found.keys += key;
      found.key_ends.push_back(std::ssize(found.keys));
    }
    const auto [extension, is_new] = extensions.emplace(split->extension, std::ssize(extensions));
    if (is_new) found.extensions.emplace_back(split->extension);
    found.sample_of[member] = std::ssize(found.key_ends) - 1;
    found.extension_of[member] = extension->second;
  }
  return found;
}

}  // namespace s3io
