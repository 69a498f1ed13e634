#include "format/tar_header.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "base/error.h"
#include "base/printable.h"

namespace s3io {
namespace {

struct TarField {
  size_t offset;
  size_t length;
};

constexpr TarField kName{0, 100};
constexpr TarField kSize{124, 12};
constexpr TarField kChecksum{148, 8};
constexpr size_t kType = 156;
constexpr TarField kLink{157, 100};
constexpr TarField kMagic{257, 6};
constexpr TarField kPrefix{345, 155};

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string_view whole(std::string_view block, TarField field) {
  return block.substr(field.offset, field.length);
}

std::string_view up_to_nul(std::string_view text) { return text.substr(0, text.find('\0')); }

// Octal digits behind blanks, up to a blank or NUL: 0 where there are none.
std::optional<int64_t> parse_octal(std::string_view field) {
  field = up_to_nul(field);
  field.remove_prefix(std::min(field.find_first_not_of(' '), field.size()));
  int64_t value = 0;
  size_t at = 0;
  for (; at < field.size() && field[at] >= '0' && field[at] <= '7'; ++at) {
    value = value * 8 + (field[at] - '0');  // no field has more digits than 12
  }
  const std::string_view rest = field.substr(at);
  if (rest.find_first_not_of(' ') != std::string_view::npos) return std::nullopt;
  return value;
}

// Big-endian, behind a first byte that marks it.
std::optional<int64_t> parse_base256(std::string_view field) {
  int64_t value = 0;
  for (const char digit : field.substr(1)) {
    if (value > std::numeric_limits<int64_t>::max() >> 8) return std::nullopt;
    value = value << 8 | static_cast<unsigned char>(digit);
  }
  return value;
}

std::optional<int64_t> parse_number(std::string_view field) {
  if (field[0] == '\x80') return parse_base256(field);
  return parse_octal(field);
}

// Of all bytes but for the checksum's own, which count as blanks.
template <typename Byte>
int64_t sum_of(std::string_view block) {
  int64_t sum = static_cast<int64_t>(kChecksum.length) * ' ';
  for (const char byte : block) sum += static_cast<Byte>(byte);
  for (const char byte : whole(block, kChecksum)) sum -= static_cast<Byte>(byte);
  return sum;
}

// Some old archives have the sum of signed bytes.
bool has_checksum(std::string_view block, int64_t checksum) {
  return checksum == sum_of<unsigned char>(block) || checksum == sum_of<signed char>(block);
}

}  // namespace

std::string TarHeader::full_name() const {
  return prefix.empty() ? std::string(name) : message(prefix, "/", name);
}

bool is_zero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(),
                     [](std::byte byte) { return byte == std::byte{}; });
}

std::optional<TarHeader> parse_tar_header(std::span<const std::byte> bytes, std::string& wrong) {
  const std::string_view block = as_text(bytes);
  const std::optional<int64_t> checksum = parse_octal(whole(block, kChecksum));
  if (!checksum || !has_checksum(block, *checksum)) {
    wrong = "the checksum is wrong";
    return std::nullopt;
  }
  const std::optional<int64_t> size = parse_number(whole(block, kSize));
  if (!size) {
    wrong = message("the size ", quoted(whole(block, kSize)), " is no number of bytes");
    return std::nullopt;
  }
  TarHeader header{.type = block[kType],
                   .size = *size,
                   .prefix = {},
                   .name = up_to_nul(whole(block, kName)),
                   .link = up_to_nul(whole(block, kLink))};
  // GNU's magic ends in a blank, and has times where the prefix lies here.
  if (whole(block, kMagic) == std::string_view("ustar\0", kMagic.length)) {
    header.prefix = up_to_nul(whole(block, kPrefix));
  }
  return header;
}

std::string foreign_file(std::span<const std::byte> bytes) {
  struct Kind {
    std::string_view begin;
    std::string_view name;
    std::string_view advice;
  };
  constexpr std::string_view kDecompress =
      "members of a compressed archive cannot be read by themselves: decompress it once, by "
      "gunzip, "
      "unzstd, bunzip2, unxz or unlz4";
  constexpr Kind kKinds[] = {
      {"\x1f\x8b", "is compressed by gzip", kDecompress},
      {"\x28\xb5\x2f\xfd", "is compressed by zstd", kDecompress},
      {"BZh", "is compressed by bzip2", kDecompress},
      {"\xfd\x37\x7a\x58\x5a", "is compressed by xz", kDecompress},
      {"\x04\x22\x4d\x18", "is compressed by lz4", kDecompress},
      {"PK\x03\x04", "is a zip archive", "write its files as a tar archive"},
      {"version https://git-lfs", "is a pointer of git-lfs, not the file",
       "fetch the file: git lfs pull"},
  };
  for (const Kind& kind : kKinds) {
    if (as_text(bytes).starts_with(kind.begin)) return message(kind.name, "; ", kind.advice);
  }
  return "";
}

std::string PaxRecords::add(std::span<const std::byte> bytes) {
  std::string_view rest = as_text(bytes);
  while (!rest.empty() && rest[0] != '\0') {  // some writers pad with NULs
    size_t length = 0;
    const auto [digits_end, error] =
        std::from_chars(rest.data(), rest.data() + rest.size(), length);
    const auto digits = static_cast<size_t>(digits_end - rest.data());
    if (error != std::errc() || length > rest.size() || length < digits + 2 ||
        rest[digits] != ' ' || rest[length - 1] != '\n') {
      return message("the record at ", quoted(rest.substr(0, 40)), " has not the length it names");
    }
    const std::string_view record = rest.substr(digits + 1, length - digits - 2);
    const size_t equals = record.find('=');
    if (equals == std::string_view::npos || equals == 0) {
      return message("the record ", quoted(record), " is no keyword with a value");
    }
    std::string wrong = add_record(record.substr(0, equals), record.substr(equals + 1));
    if (!wrong.empty()) return wrong;
    rest.remove_prefix(length);
  }
  return "";
}

std::string PaxRecords::add_record(std::string_view keyword, std::string_view value) {
  const bool is_name = keyword == "path" || keyword == "linkpath" || keyword == "GNU.sparse.name";
  if (is_name && value.find('\0') != std::string_view::npos) {
    return message("the ", keyword, " ", quoted(value), " has a NUL in it");
  }
  if (keyword == "path") {
    path = value.substr(0, value.find_last_not_of('/') + 1);
  } else if (keyword == "linkpath") {
    link = value;
  } else if (keyword == "size") {
    int64_t number = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (value.empty()) {
      size.reset();
    } else if (error != std::errc() || end != value.data() + value.size() || number < 0) {
      return message("the size ", quoted(value), " is no number of bytes");
    } else {
      size = number;
    }
  } else if (keyword.starts_with("GNU.sparse.")) {
    is_sparse = true;
    if (keyword == "GNU.sparse.name") sparse_name = value;
  }
  return "";
}

}  // namespace s3io
