#include "base/cgroup.h"

#include <algorithm>
#include <optional>

#include "base/kernel_text.h"

namespace s3io {
namespace {

constexpr size_t kMostLevels = 256;

// One line of mountinfo: "36 35 0:30 /root /mount/point rw shared:1 - cgroup2 source rw,memory".
struct Mount {
  std::string_view root;  // the group whose folder the mount point is
  std::string_view point;
  std::string_view type;
  std::string_view options;  // of the file system: for v1 its controllers
};

std::optional<Mount> parse_mount(std::string_view line) {
  constexpr int kRoot = 3;
  constexpr int kPoint = 4;
  Mount mount;
  for (int index = 0; index <= kPoint; ++index) {
    const auto field = take_until(line, ' ');
    if (!field) return std::nullopt;
    if (index == kRoot) mount.root = *field;
    if (index == kPoint) mount.point = *field;
  }
  while (const auto field = take_until(line, ' ')) {
    if (*field != "-") continue;  // how many options stand before it is open
    mount.type = take_until(line, ' ').value_or("");
    take_until(line, ' ');
    mount.options = line;
    return mount;
  }
  return std::nullopt;
}

bool has_item(std::string_view list, std::string_view wanted) {
  while (const auto item = take_until(list, ',')) {
    if (*item == wanted) return true;
  }
  return false;
}

// Paths in mountinfo have spaces and the like as three octal digits: "\040".
std::string unescaped(std::string_view path) {
  const auto digit = [&](size_t index) { return static_cast<unsigned>(path[index] - '0'); };
  std::string text;
  for (size_t index = 0; index < path.size(); ++index) {
    const bool is_escape = path[index] == '\\' && index + 3 < path.size() && digit(index + 1) < 4 &&
                           digit(index + 2) < 8 && digit(index + 3) < 8;
    if (!is_escape) {
      text += path[index];
      continue;
    }
    text += static_cast<char>(digit(index + 1) * 64 + digit(index + 2) * 8 + digit(index + 3));
    index += 3;
  }
  return text;
}

// What lies between a group and one above it, "" or "/..."; nothing if it is not above.
std::optional<std::string> below(const std::string& group, std::string_view top) {
  if (top == "/") return group == "/" ? "" : group;
  if (!group.starts_with(top)) return std::nullopt;
  const std::string rest = group.substr(top.size());
  if (!rest.empty() && rest.front() != '/') return std::nullopt;
  return rest;
}

// Adds the folders of a group and of those above it, as far up as a mount shows them.
void add_levels(const std::string& group, bool unified, std::string_view mounts,
                std::string_view controller, std::vector<Cgroup>& found) {
  std::optional<Mount> best;  // that shows the most
  std::string best_rest;
  bool best_is_above = false;
  while (const auto line = take_until(mounts, '\n')) {
    const std::optional<Mount> mount = parse_mount(*line);
    if (!mount || mount->type != (unified ? "cgroup2" : "cgroup")) continue;
    if (!unified && !has_item(mount->options, controller)) continue;
    const std::string root = unescaped(mount->root);
    // Mounted outside of this cgroup namespace: it shows a group above, which has no name here.
    const bool is_above = root.starts_with("/..");
    std::optional<std::string> rest = is_above ? "" : below(group, root);
    if (!rest) continue;
    const bool shows_more = rest->size() > best_rest.size() || (best_is_above && !is_above);
    if (best && !shows_more) continue;
    best = mount;
    best_rest = std::move(*rest);
    best_is_above = is_above;
  }
  if (!best) return;
  if (best_rest.find("/..") != std::string::npos) best_rest.clear();  // outside of the namespace
  std::string folder = unescaped(best->point);
  const size_t top = folder.size();
  folder += best_rest;
  for (size_t level = 0; level < kMostLevels; ++level) {
    found.push_back({folder, unified});
    if (folder.size() <= top) return;
    folder.resize(std::max(folder.rfind('/'), top));
  }
}

}  // namespace

std::vector<Cgroup> parse_cgroups(std::string_view groups, std::string_view mounts,
                                  std::string_view controller) {
  std::vector<Cgroup> found;
  while (auto line = take_until(groups, '\n')) {  // "number:controllers:/group"
    const auto number = take_until(*line, ':');
    const auto controllers = take_until(*line, ':');
    if (!number || !controllers || !line->starts_with('/')) continue;
    const bool unified = *number == "0" && controllers->empty();
    if (!unified && !has_item(*controllers, controller)) continue;
    add_levels(std::string(*line), unified, mounts, controller, found);
  }
  return found;
}

std::vector<Cgroup> own_cgroups(std::string_view controller, const std::string& root) {
  const std::string groups = read_kernel_text(root + "/proc/self/cgroup");
  const std::string mounts = read_kernel_text(root + "/proc/self/mountinfo");
  std::vector<Cgroup> found = parse_cgroups(groups, mounts, controller);
  for (Cgroup& cgroup : found) cgroup.folder.insert(0, root);
  return found;
}

}  // namespace s3io
