// What single blocks of a tar archive say: headers, and the records of pax headers.
//
// Formats: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Interchange Format"; the GNU tar
// manual, "Basic Tar Format".
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace s3io {

inline constexpr int64_t kTarBlockBytes = 512;

// Views of a block.
struct TarHeader {
  char type = 0;
  int64_t size = 0;
  std::string_view prefix;  // of the name, without the "/" between them; mostly empty
  std::string_view name;
  std::string_view link;

  std::string full_name() const;
};

bool is_zero(std::span<const std::byte> bytes);

// The block of 512 bytes as a header. Else what is wrong with it, in `wrong`.
std::optional<TarHeader> parse_tar_header(std::span<const std::byte> block, std::string& wrong);

// What another kind of file begins like this, and what to do about it; empty where none is known.
std::string foreign_file(std::span<const std::byte> begin);

// The records of pax headers that say where a member lies. (hdrcharset is none of them: names are
// bytes here.) A text is empty where a record takes back what was said elsewhere.
struct PaxRecords {
  std::optional<std::string> path;
  std::optional<std::string> link;
  std::optional<int64_t> size;
  std::optional<std::string> sparse_name;
  bool is_sparse = false;

  // Adds the records of a header: of two with one keyword the later counts. What is wrong with
  // them; empty: nothing.
  std::string add(std::span<const std::byte> bytes);

 private:
  std::string add_record(std::string_view keyword, std::string_view value);
};

}  // namespace s3io
