// Tar archives made block by block, and what is found in one that lies in memory.
#pragma once

#include <cstdio>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "format/tar_chain.h"
#include "testing.h"

namespace s3io::testing {

inline std::string padded(std::string text) {
  text.resize((text.size() + 511) / 512 * 512);
  return text;
}

// Fields of a header, as they are written.
struct TarFields {
  char type = '0';
  std::string name;
  std::string size = "";  // empty: the data's, in octal
  std::string link = "";
  std::string magic = std::string(
      "ustar\0"
      "00",
      8);
  std::string prefix = "";
  int64_t checksum_error = 0;
  bool has_signed_checksum = false;
};

inline std::string octal(int64_t number) {
  char text[16];
  std::snprintf(text, sizeof(text), "%011llo", static_cast<unsigned long long>(number));
  return text;
}

inline std::string tar_header(const TarFields& fields, int64_t size) {
  std::string block(512, '\0');
  const auto put = [&](size_t at, const std::string& text) {
    block.replace(at, text.size(), text);
  };
  put(0, fields.name);
  put(124, fields.size.empty() ? octal(size) : fields.size);
  put(148, "        ");
  block[156] = fields.type;
  put(157, fields.link);
  put(257, fields.magic);
  put(345, fields.prefix);
  int64_t sum = fields.checksum_error;
  for (const char byte : block) {
    sum += fields.has_signed_checksum ? static_cast<signed char>(byte)
                                      : static_cast<unsigned char>(byte);
  }
  put(148, octal(sum).substr(5) + std::string(1, '\0') + " ");
  return block;
}

inline std::string tar_member(const TarFields& fields, const std::string& data = "") {
  return tar_header(fields, std::ssize(data)) + padded(data);
}

inline std::string pax_record(const std::string& keyword, const std::string& value) {
  const std::string rest = " " + keyword + "=" + value + "\n";
  size_t length = rest.size() + 1;
  while (std::to_string(length).size() + rest.size() != length) ++length;
  return std::to_string(length) + rest;
}

inline std::string pax_header(const std::string& records, char type = 'x') {
  return tar_member({.type = type, .name = "PaxHeader"}, records);
}

inline const std::string kTarEnd(1024, '\0');

// (name, offset, size)
using Found = std::vector<std::tuple<std::string, int64_t, int64_t>>;

inline Found found_in(const TarMembers& members) {
  Found found;
  for (size_t member = 0; member < members.count(); ++member) {
    found.emplace_back(members.name(member), members.offsets[member], members.sizes[member]);
  }
  return found;
}

// Checks what the chain promises of the ranges that it wants.
inline Found found_in(std::string_view archive) {
  TarMembers members;
  TarChain chain("a.tar", std::ssize(archive), members);
  const std::vector<std::byte> bytes(
      reinterpret_cast<const std::byte*>(archive.data()),
      reinterpret_cast<const std::byte*>(archive.data()) + archive.size());
  int64_t behind = 0;
  while (chain.wanted().length > 0) {
    const ByteRange wanted = chain.wanted();
    REQUIRE(wanted.offset >= behind);
    REQUIRE(wanted.length <= HeaderChain::kMostBytes);
    REQUIRE(wanted.end() <= std::ssize(bytes));
    behind = wanted.end();
    // An allocation of its own: a sanitizer sees what lies beyond.
    const std::vector<std::byte> part(bytes.begin() + wanted.offset, bytes.begin() + wanted.end());
    chain.take(part);
  }
  const Found found = found_in(members);
  for (const auto& [name, offset, size] : found) {
    REQUIRE(offset >= 512);
    REQUIRE(size >= 0);
    REQUIRE(offset + size <= std::ssize(archive));
  }
  return found;
}

}  // namespace s3io::testing
