// Patterns of paths, as Python's glob takes them (glob.glob(pattern, recursive=True)): `*`, `?` and
// `[...]` within a name, and `**` for any folders. What begins with a dot is matched only by what
// begins with a dot as well.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace s3io {

// As Python's os.path.abspath makes it where `current` is the current folder: without "..", "." and
// slashes that say nothing.
std::string absolute_path(std::string_view current, std::string_view path);

// One name of a path. Characters are those of UTF-8; a byte that is no text is one of its own, as
// in Python's os.fsdecode.
class NamePattern {
 public:
  explicit NamePattern(std::string_view text);
  bool matches(std::string_view name) const;

 private:
  struct Piece {
    bool is_star = false;     // any number of characters; else one character:
    bool is_negated = false;  // none of these
    std::vector<std::pair<char32_t, char32_t>> ranges = {};

    bool takes(char32_t character) const;
  };

  // The set that begins behind the bracket at `at`; false where nothing closes it.
  bool add_set(std::u32string_view text, size_t& at);

  bool takes_hidden_ = false;
  std::vector<Piece> pieces_;
};

// The names of a path, from a folder on. Immutable.
class PathPattern {
 public:
  // Parts of the pattern that may come next: a set of their numbers.
  using Parts = uint64_t;

  struct Match {
    bool is_meant = false;  // the pattern ends with this name
    Parts below = 0;        // what may come next in a folder of this name; 0: nothing
  };

  // Throws Error(config) where it has too many parts, or a part "..".
  explicit PathPattern(std::string_view text);

  Parts first() const { return first_; }
  Match match(Parts parts, std::string_view name) const;

 private:
  struct Part {
    bool is_recursive;  // `**`
    NamePattern pattern;
  };

  Parts with_skipped(Parts parts) const;

  std::vector<Part> parts_;
  Parts first_ = 0;
};

}  // namespace s3io
