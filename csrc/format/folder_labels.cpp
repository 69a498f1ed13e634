#include "format/folder_labels.h"

#include <algorithm>
#include <numeric>
#include <string_view>
#include <unordered_map>

#include "base/error.h"

namespace s3io {
namespace {

// Empty: there is none.
std::string_view folder_of(std::string_view path, int64_t name_bytes, LabelFolder which) {
  if (which == LabelFolder::first) {
    const std::string_view name = path.substr(path.size() - static_cast<size_t>(name_bytes));
    const size_t slash = name.find('/');
    return slash == std::string_view::npos ? std::string_view() : name.substr(0, slash);
  }
  const size_t slash = path.rfind('/');
  if (slash == std::string_view::npos) return {};
  const std::string_view folder = path.substr(0, slash);
  return folder.substr(folder.rfind('/') + 1);
}

// Sorts the classes, and renumbers the labels so.
FolderLabels in_order(std::vector<int64_t> labels, const std::vector<std::string_view>& found) {
  std::vector<size_t> order(found.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::sort(order, {}, [&](size_t number) { return found[number]; });
  std::vector<int64_t> numbers(found.size());
  FolderLabels sorted;
  for (const size_t number : order) {
    numbers[number] = static_cast<int64_t>(sorted.classes.size());
    sorted.classes.emplace_back(found[number]);
  }
  for (int64_t& label : labels) label = numbers[static_cast<size_t>(label)];
  sorted.labels = std::move(labels);
  return sorted;
}

}  // namespace

FolderLabels label_by_folders(const ObjectNames& paths, std::span<const int64_t> name_bytes,
                              LabelFolder which) {
  std::unordered_map<std::string_view, int64_t> numbers;
  std::vector<std::string_view> found;
  std::vector<int64_t> labels;
  labels.reserve(name_bytes.size());
  for (int64_t file = 0; file < paths.count(); ++file) {
    const int64_t bytes = name_bytes[static_cast<size_t>(file)];
    if (bytes < 0 || bytes > std::ssize(paths[file])) {
      throw Error(ErrorKind::config, "a name is longer than its path");
    }
    const std::string_view folder = folder_of(paths[file], bytes, which);
    if (folder.empty()) {
      throw Error(ErrorKind::data,
                  message(paths[file],
                          ": labels='folder': the file lies in no folder below the "
                          "fixed part of the pattern, which would name its class; "
                          "give a pattern that leaves it out, such as "
                          "'train/*/**/*.jpg', or labels=None"));
    }
    const auto [entry, is_new] = numbers.try_emplace(folder, std::ssize(found));
    if (is_new) found.push_back(folder);
    labels.push_back(entry->second);
  }
  return in_order(std::move(labels), found);
}

int64_t common_folder_bytes(const ObjectNames& paths) {
  if (paths.count() == 0) return 0;
  std::string_view common = paths[0].substr(0, paths[0].rfind('/') + 1);
  for (int64_t file = 1; file < paths.count(); ++file) {
    while (!paths[file].starts_with(common)) {
      const std::string_view folder = common.substr(0, common.size() - 1);
      common = folder.substr(0, folder.rfind('/') + 1);
    }
  }
  return std::ssize(common);
}

}  // namespace s3io
