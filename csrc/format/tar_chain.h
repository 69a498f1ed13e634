// The files of a tar archive: V7, ustar, GNU and pax.
//
// Regular files are found, and hard links to earlier ones, as the bytes of these. Folders, devices,
// FIFOs and what GNU tar notes for itself are left out. What would be a file with other bytes than
// lie there is refused by name: symbolic links, sparse files, files of several volumes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "format/header_chain.h"
#include "format/tar_header.h"
#include "format/tar_members.h"

namespace s3io {

// An archive is a row of members. A member is a header of 512 bytes and its data, which are padded
// to a multiple of that. Headers of types L, K and x say more of the member behind them, those of
// type g of all behind. Two blocks of zeros are the end; one, or the end of the object, will do.
// A member within 1 MiB behind the end is refused: archives that were put one behind the other.
//
//     x "path=a.jpg" | 0 a.jpg, 700 bytes | 1 b.jpg -> a.jpg | zeros | zeros
//     0       512      1024   1536          2560               3072
class TarChain final : public HeaderChain {
 public:
  static constexpr int64_t kMostNameBytes = 4096;
  static constexpr int64_t kMostMembers = int64_t{1} << 31;

  // Appends what it finds to `members`, which is empty and outlives it. Throws Error(data) for an
  // empty object.
  TarChain(std::string path, int64_t size_bytes, TarMembers& members);

  void take(std::span<const std::byte> bytes) override;

 private:
  enum class Expects : uint8_t { header, end, name, link, pax, global_pax };

  // Of the member that comes next.
  struct Extensions {
    int64_t offset = -1;  // of the first header that says more of it; -1: there is none
    std::optional<std::string> name;
    std::optional<std::string> link;
    std::optional<PaxRecords> pax;
  };

  struct Member {
    char type = 0;
    std::string name;
    std::string link;
    int64_t size = 0;  // of its data
    bool is_sparse = false;
  };

  void take_header(std::span<const std::byte> bytes);
  void take_zeros(std::span<const std::byte> bytes);
  void take_end(std::span<const std::byte> bytes);
  void begin_extension(const TarHeader& header);
  void take_extension(std::span<const std::byte> bytes);
  Member member_of(const TarHeader& header) const;
  void take_member(const Member& member);
  void take_hard_link(const Member& member);
  void add(std::string_view name, int64_t offset, int64_t size);

  int64_t data_offset() const { return header_offset_ + kTarBlockBytes; }
  // Most bytes that the data behind the last header can have.
  int64_t room() const { return std::max<int64_t>(0, size_bytes_ - data_offset()); }
  void check_size(int64_t size, std::string_view what) const;
  void expect_header(int64_t offset);
  void refuse_unused_extensions(int64_t end) const;
  [[noreturn]] void fail(std::string_view what, std::string_view advice = {}) const;

  const std::string path_;
  const int64_t size_bytes_;
  TarMembers& members_;
  Expects expects_ = Expects::header;
  int64_t header_offset_ = 0;   // of the last header
  int64_t extension_size_ = 0;  // bytes of its data, where these are expected
  Extensions extensions_;
  PaxRecords global_;
  // The last member of each name, as of the last hard link.
  std::unordered_map<std::string, size_t> by_name_;
  size_t num_by_name_ = 0;
};

}  // namespace s3io
