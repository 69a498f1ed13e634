#include "http/xml.h"

#include <algorithm>
#include <charconv>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"

namespace s3io {

bool is_name_character(char one) {
  return (one >= 'a' && one <= 'z') || (one >= 'A' && one <= 'Z') || (one >= '0' && one <= '9') ||
         one == '-' || one == '_' || one == '.' || one == ':';
}

namespace {

constexpr size_t kMostDepth = 8;
constexpr size_t kMostPathBytes = 256;
constexpr size_t kMostTextBytes = 8192;  // of one element
constexpr std::string_view kXmlBlanks = " \t\r\n";

class Walk {
 public:
  Walk(std::string_view xml, const XmlVisitor& visit) : xml_(xml), visit_(visit) {}

  void run() {
    skip_blanks();
    if (rest().starts_with("<?xml")) skip_behind("?>");
    skip_blanks();
    if (!rest().starts_with('<') || rest().starts_with("</"))
      fail("it does not begin with an element");
    do {
      if (rest().starts_with("</")) {
        close();
      } else if (rest().starts_with('<')) {
        open();
      } else {
        add_text();
      }
    } while (!begins_.empty());
    skip_blanks();
    if (at_ < xml_.size()) fail("something follows its end");
  }

 private:
  [[noreturn]] void fail(std::string_view problem) const {
    throw Error(ErrorKind::data, message("the XML is malformed at byte ", at_, ": ", problem));
  }
  std::string_view rest() const { return xml_.substr(at_); }
  void skip_blanks() { at_ = std::min(xml_.find_first_not_of(kXmlBlanks, at_), xml_.size()); }
  void skip_behind(std::string_view end) {
    const size_t found = xml_.find(end, at_);
    if (found == std::string_view::npos) fail("it is cut off");
    at_ = found + end.size();
  }

  std::string_view name() {
    const size_t begin = at_;
    while (at_ < xml_.size() && is_name_character(xml_[at_])) ++at_;
    if (at_ == begin) fail("a name was expected");
    return xml_.substr(begin, at_ - begin);
  }

  void open() {
    at_ += 1;
    const std::string_view element = name();
    if (begins_.size() >= kMostDepth || path_.size() + element.size() >= kMostPathBytes) {
      fail("its elements lie too deep in each other");
    }
    begins_.push_back(path_.size());
    if (!path_.empty()) path_ += '/';
    path_ += element;
    text_.clear();
    is_leaf_ = true;
    skip_attributes();
    if (rest().starts_with("/>")) {
      at_ += 2;
      end_element();
    } else if (rest().starts_with('>')) {
      at_ += 1;
    } else {
      fail("a tag has no end");
    }
  }

  void skip_attributes() {
    for (skip_blanks(); at_ < xml_.size() && is_name_character(xml_[at_]); skip_blanks()) {
      name();
      const char quote = rest().size() >= 2 && xml_[at_] == '=' ? xml_[at_ + 1] : '\0';
      if (quote != '"' && quote != '\'') fail("an attribute has no value");
      at_ += 2;
      skip_behind(std::string_view(&quote, 1));
    }
  }

  void close() {
    at_ += 2;
    const std::string_view element = name();
    const size_t begin = begins_.back() + (begins_.back() == 0 ? 0 : 1);
    if (element != std::string_view(path_).substr(begin)) fail("an element ends as another one");
    skip_blanks();
    if (!rest().starts_with('>')) fail("a tag has no end");
    at_ += 1;
    end_element();
  }

  void end_element() {
    visit_(path_, is_leaf_ ? text_ : std::string_view());
    path_.resize(begins_.back());
    begins_.pop_back();
    is_leaf_ = false;
  }

  void add_text() {
    const size_t end = xml_.find('<', at_);
    if (end == std::string_view::npos) fail("it is cut off");
    while (at_ < end) {
      if (text_.size() >= kMostTextBytes) fail("a text is too long");
      if (xml_[at_] == '&') {
        add_reference(end);
      } else {
        text_ += xml_[at_++];
      }
    }
  }

  void add_reference(size_t end) {
    constexpr std::pair<std::string_view, char> kEntities[] = {
        {"&lt;", '<'}, {"&gt;", '>'}, {"&amp;", '&'}, {"&quot;", '"'}, {"&apos;", '\''}};
    for (const auto& [entity, character] : kEntities) {
      if (!rest().starts_with(entity)) continue;
      text_ += character;
      at_ += entity.size();
      return;
    }
    const bool is_hex = rest().starts_with("&#x");
    const size_t semicolon = xml_.find(';', at_);
    if (!rest().starts_with("&#") || semicolon >= end) fail("an entity is unknown");
    const std::string_view digits = xml_.substr(at_, semicolon - at_).substr(is_hex ? 3 : 2);
    uint32_t code = 0;
    const auto [last, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), code, is_hex ? 16 : 10);
    const bool is_character = code > 0 && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff);
    if (error != std::errc() || last != digits.data() + digits.size() || !is_character) {
      fail("a number is none of a character");
    }
    add_character(code);
    at_ = semicolon + 1;
  }

  void add_character(uint32_t code) {  // UTF-8
    const auto add = [&](uint32_t byte) { text_ += static_cast<char>(byte); };
    if (code < 0x80) return add(code);
    if (code < 0x800) {
      add(0xc0 | code >> 6);
    } else {
      if (code < 0x10000) {
        add(0xe0 | code >> 12);
      } else {
        add(0xf0 | code >> 18);
        add(0x80 | (code >> 12 & 0x3f));
      }
      add(0x80 | (code >> 6 & 0x3f));
    }
    add(0x80 | (code & 0x3f));
  }

  const std::string_view xml_;
  const XmlVisitor& visit_;
  size_t at_ = 0;
  std::string path_;
  std::vector<size_t> begins_;  // of each open element, in path_
  std::string text_;            // of the innermost one
  bool is_leaf_ = false;
};

}  // namespace

void walk_xml(std::string_view xml, const XmlVisitor& visit) { Walk(xml, visit).run(); }

}  // namespace s3io
