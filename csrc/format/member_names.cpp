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

using FirstMembers = std::unordered_map<std::string_view, size_t>;

// Of each key that members before this one have.
FirstMembers keys_before(const TarMembers& members, const SampleNames& found, size_t member) {
  FirstMembers first_members;
  int64_t last = -1;
  for (size_t before = 0; before < member; ++before) {
    if (found.sample_of[before] <= last) continue;
    last = found.sample_of[before];
    first_members.emplace(split_member_name(members.name(before))->key, before);
  }
  return first_members;
}

[[noreturn]] void refuse_key(const std::string& path, const TarMembers& members,
                             std::string_view key, size_t first, size_t again) {
  throw Error(ErrorKind::data,
              message(path, ": the members of sample ", quoted(key), " do not follow one another: ",
                      quoted(members.name(first)), " lies at byte ", members.offsets[first], ", ",
                      quoted(members.name(again)), " at byte ", members.offsets[again],
                      ", with other samples between them; write the archive anew, sorted by name"));
}

[[noreturn]] void refuse_extensions(const std::string& path, const SampleNames& found,
                                    std::string_view name) {
  throw Error(ErrorKind::data,
              message(path, ": there are more than ", found.extensions.size() - 1,
                      " fields, such as ", quoted(found.extensions.front()), " and ",
                      quoted(found.extensions.back()), ", the one of ", quoted(name),
                      ": a field begins behind the first dot of a file's name; write the archive "
                      "anew with names that have no dot before that"));
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

SampleNames group_member_names(const std::string& path, const TarMembers& members,
                               size_t most_extensions) {
  SampleNames found;
  found.sample_of.assign(members.count(), -1);
  found.extension_of.assign(members.count(), -1);
  std::unordered_map<std::string_view, int64_t> extensions;
  std::optional<FirstMembers> first_members;  // where keys do not ascend
  std::string_view key;
  for (size_t member = 0; member < members.count(); ++member) {
    const std::string_view name = members.name(member);
    const std::optional<MemberName> split = split_member_name(name);
    if (!split) continue;
    const bool is_first = found.key_ends.empty();
    if (is_first || split->key != key) {
      if (!is_first && !first_members && split->key < key) {
        first_members = keys_before(members, found, member);
      }
      key = split->key;
      if (first_members) {
        const auto [first, is_new] = first_members->emplace(key, member);
        if (!is_new) refuse_key(path, members, key, first->second, member);
      }
      found.keys += key;
      found.key_ends.push_back(std::ssize(found.keys));
    }
    const auto [extension, is_new] = extensions.emplace(split->extension, std::ssize(extensions));
    if (is_new) found.extensions.emplace_back(split->extension);
    if (found.extensions.size() > most_extensions) refuse_extensions(path, found, name);
    found.sample_of[member] = std::ssize(found.key_ends) - 1;
    found.extension_of[member] = extension->second;
  }
  return found;
}

}  // namespace s3io
