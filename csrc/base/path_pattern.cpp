#include "base/path_pattern.h"

#include <algorithm>

#include "base/characters.h"
#include "base/error.h"
#include "base/printable.h"

namespace s3io {
namespace {

void decode(std::string_view text, std::u32string& out) {
  out.clear();
  for (size_t at = 0; at < text.size();) out.push_back(next_character(text, at));
}

bool is_hidden(std::string_view name) { return name.starts_with('.'); }

}  // namespace

std::string absolute_path(std::string_view current, std::string_view path) {
  std::string made;
  for (std::string_view rest : {path.starts_with('/') ? std::string_view() : current, path}) {
    while (!rest.empty()) {
      const size_t end = std::min(rest.find('/'), rest.size());
      const std::string_view name = rest.substr(0, end);
      rest.remove_prefix(std::min(end + 1, rest.size()));
      if (name == "..") made.resize(made.empty() ? 0 : made.rfind('/'));
      if (name.empty() || name == "." || name == "..") continue;
      made += '/';
      made += name;
    }
  }
  return made.empty() ? "/" : made;
}

NamePattern::NamePattern(std::string_view text) : takes_hidden_(is_hidden(text)) {
  std::u32string characters;
  decode(text, characters);
  for (size_t at = 0; at < characters.size();) {
    const char32_t character = characters[at++];
    if (character == U'*') {
      if (pieces_.empty() || !pieces_.back().is_star) pieces_.push_back({.is_star = true});
    } else if (character == U'?') {
      pieces_.push_back({.is_negated = true});
    } else if (character != U'[' || !add_set(characters, at)) {
      pieces_.push_back({.ranges = {{character, character}}});
    }
  }
}

bool NamePattern::add_set(std::u32string_view text, size_t& at) {
  size_t begin = at;
  const bool is_negated = begin < text.size() && text[begin] == U'!';
  if (is_negated) ++begin;
  const size_t end = text.find(U']', begin + 1);  // as the first one, it is one of the set
  if (end == std::u32string_view::npos) return false;
  Piece piece{.is_negated = is_negated};
  for (size_t place = begin; place < end;) {
    const bool is_range = place + 2 < end && text[place + 1] == U'-';
    piece.ranges.emplace_back(text[place], text[is_range ? place + 2 : place]);
    place += is_range ? 3 : 1;
  }
  pieces_.push_back(std::move(piece));
  at = end + 1;
  return true;
}

bool NamePattern::Piece::takes(char32_t character) const {
  const bool is_in = std::ranges::any_of(ranges, [&](const auto& range) {
    return range.first <= character && character <= range.second;
  });
  return is_in != is_negated;
}

bool NamePattern::matches(std::string_view name) const {
  if (is_hidden(name) && !takes_hidden_) return false;
  thread_local std::u32string text;
  decode(name, text);
  size_t piece = 0;
  size_t at = 0;
  size_t star = pieces_.size();  // the last one that was passed, and how far it reaches so far
  size_t reached = 0;
  while (at < text.size()) {
    if (piece < pieces_.size() && pieces_[piece].is_star) {
      star = piece++;
      reached = at;
    } else if (piece < pieces_.size() && pieces_[piece].takes(text[at])) {
      ++piece;
      ++at;
    } else if (star < pieces_.size()) {
      piece = star + 1;
      at = ++reached;
    } else {
      return false;
    }
  }
  return std::all_of(pieces_.begin() + static_cast<std::ptrdiff_t>(piece), pieces_.end(),
                     [](const Piece& one) { return one.is_star; });
}

PathPattern::PathPattern(std::string_view text) {
  constexpr size_t kMostParts = 64;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('/', begin), text.size());
    const std::string_view part = text.substr(begin, end - begin);
    begin = end + 1;
    const bool is_last = end == text.size();
    if (part == ".." || parts_.size() == kMostParts) {
      throw Error(ErrorKind::config,
                  message("the pattern ", quoted(text),
                          part == ".." ? " has a '..' behind a wildcard: write the folder itself"
                                       : " has more than 64 parts: name a folder that is nearer"));
    }
    // As the last one it means the folder itself, which is no file.
    if ((part.empty() || part == ".") && !is_last) continue;
    parts_.push_back({part == "**", NamePattern(part)});
  }
  first_ = with_skipped(1);
}

// `**` stands for no folder as well.
PathPattern::Parts PathPattern::with_skipped(Parts parts) const {
  for (size_t part = 0; part + 1 < parts_.size(); ++part) {
    if ((parts >> part & 1) != 0 && parts_[part].is_recursive) parts |= Parts{1} << (part + 1);
  }
  return parts;
}

PathPattern::Match PathPattern::match(Parts parts, std::string_view name) const {
  Match match;
  for (size_t part = 0; part < parts_.size(); ++part) {
    if ((parts >> part & 1) == 0) continue;
    const bool is_last = part + 1 == parts_.size();
    if (parts_[part].is_recursive) {
      if (is_hidden(name)) continue;
      match.is_meant = match.is_meant || is_last;
      match.below |= Parts{1} << part;
    } else if (parts_[part].pattern.matches(name)) {
      match.is_meant = match.is_meant || is_last;
      if (!is_last) match.below |= Parts{1} << (part + 1);
    }
  }
  match.below = with_skipped(match.below);
  return match;
}

}  // namespace s3io
