#include "format/tar_chain.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "base/align.h"
#include "base/error.h"
#include "base/printable.h"

namespace s3io {
namespace {

constexpr std::string_view kCopyAgain = "copy the archive again, or write it anew";

bool is_extension(char type) {
  return type == 'L' || type == 'K' || type == 'x' || type == 'X' || type == 'g';
}

bool is_file(char type) { return type == '0' || type == '\0' || type == '7'; }

// Links, devices, folders and FIFOs: their size, where there is one, is not of data.
bool has_no_data(char type) { return type >= '1' && type <= '6'; }

std::string_view without_dot(std::string_view name) {
  while (name.starts_with("./")) name.remove_prefix(2);
  return name;
}

// The first text that is there. An empty one says that those behind it are not meant.
std::string said(std::initializer_list<const std::optional<std::string>*> texts) {
  for (const std::optional<std::string>* text : texts) {
    if (*text) return **text;
  }
  return {};
}

}  // namespace

TarChain::TarChain(std::string path, int64_t size_bytes, TarMembers& members)
    : path_(std::move(path)), size_bytes_(size_bytes), members_(members) {
  if (size_bytes_ == 0) {
    throw Error(ErrorKind::data,
                message(path_, ": the archive is empty: it has not even an end; ", kCopyAgain));
  }
  expect_header(0);
}

void TarChain::take(std::span<const std::byte> bytes) {
  switch (expects_) {
    case Expects::header:
      return take_header(bytes);
    case Expects::end:
      return take_end(bytes);
    default:
      return take_extension(bytes);
  }
}

void TarChain::take_header(std::span<const std::byte> bytes) {
  header_offset_ = wanted_.offset;
  if (is_zero(bytes)) return take_zeros(bytes);
  if (header_offset_ == 0) {
    const std::string foreign = foreign_file(bytes);
    if (!foreign.empty()) throw Error(ErrorKind::data, message(path_, ": ", foreign));
  }
  if (std::ssize(bytes) < kTarBlockBytes) {
    fail(message("the header at byte ", header_offset_, " is cut off: the object ends at byte ",
                 size_bytes_));
  }
  std::string wrong;
  const std::optional<TarHeader> header = parse_tar_header(bytes, wrong);
  if (!header && header_offset_ == 0) {
    fail(message("is no tar archive, or a damaged one: of the header at byte 0, ", wrong));
  }
  if (!header) fail(message("the header at byte ", header_offset_, " is damaged: ", wrong));
  if (is_extension(header->type)) return begin_extension(*header);
  const Member member = member_of(*header);
  extensions_ = {};
  take_member(member);
}

void TarChain::take_zeros(std::span<const std::byte> bytes) {
  refuse_unused_extensions(header_offset_);
  members_.has_end = std::ssize(bytes) == kTarBlockBytes;
  const int64_t begin = header_offset_ + std::ssize(bytes);
  expects_ = Expects::end;
  wanted_ = {begin, std::min(kMostBytes, size_bytes_ - begin)};
}

// Zeros fill the last record of an archive; what lies behind them is none of its business, unless
// it is a member. Then a part of the archive was lost, or there is another one.
void TarChain::take_end(std::span<const std::byte> bytes) {
  const auto used =
      std::find_if(bytes.begin(), bytes.end(), [](std::byte byte) { return byte != std::byte{}; });
  const int64_t at = align_down(used - bytes.begin(), kTarBlockBytes);
  std::string wrong;
  if (std::ssize(bytes) - at >= kTarBlockBytes &&
      parse_tar_header(bytes.subspan(static_cast<size_t>(at), kTarBlockBytes), wrong)) {
    const int64_t member = wanted_.offset + at;
    fail(message("there are only zeros at byte ", header_offset_,
                 ", which end an archive, but a member follows at byte ", member),
         message("copy the archive again; or, where it was made of several, join these by tar "
                 "--concatenate; or, where these bytes are of an older file, cut them off by "
                 "truncate --size=",
                 member));
  }
  wanted_ = {};
}

void TarChain::begin_extension(const TarHeader& header) {
  const bool is_pax = header.type != 'L' && header.type != 'K';
  expects_ = header.type == 'L'   ? Expects::name
             : header.type == 'K' ? Expects::link
             : header.type == 'g' ? Expects::global_pax
                                  : Expects::pax;
  const std::string_view what = is_pax ? "the pax header" : "the long name";
  const int64_t most = is_pax ? kMostBytes : kMostNameBytes + 1;  // with a NUL
  if (header.size > most) {
    fail(message(what, " at byte ", header_offset_, " has ", header.size, " bytes, more than ",
                 most));
  }
  check_size(header.size, what);
  if (expects_ != Expects::global_pax && extensions_.offset < 0) {
    extensions_.offset = header_offset_;
  }
  extension_size_ = header.size;
  wanted_ = {data_offset(), header.size};
  if (header.size == 0) take_extension({});
}

void TarChain::take_extension(std::span<const std::byte> bytes) {
  if (expects_ == Expects::name || expects_ == Expects::link) {
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    std::optional<std::string>& long_text =
        expects_ == Expects::name ? extensions_.name : extensions_.link;
    if (long_text) fail(message("the long name at byte ", header_offset_, " is the second one"));
    long_text = text.substr(0, text.find('\0'));
  } else {
    const bool is_global = expects_ == Expects::global_pax;
    if (!is_global && extensions_.pax) {
      fail(message("the pax header at byte ", header_offset_, " is the second one of a member"));
    }
    PaxRecords& records = is_global ? global_ : extensions_.pax.emplace();
    const std::string wrong = records.add(bytes);
    if (!wrong.empty()) {
      fail(message("the pax header at byte ", header_offset_, " is damaged: ", wrong));
    }
  }
  expect_header(data_offset() + extension_size_);
}

TarChain::Member TarChain::member_of(const TarHeader& header) const {
  const PaxRecords none;
  const PaxRecords& pax = extensions_.pax ? *extensions_.pax : none;
  Member member;
  member.type = header.type;
  member.name = said({&pax.sparse_name, &pax.path, &global_.path, &extensions_.name});
  if (member.name.empty()) member.name = header.full_name();
  member.link = said({&pax.link, &global_.link, &extensions_.link});
  if (member.link.empty()) member.link = header.link;
  if (!has_no_data(header.type))
    member.size = pax.size.value_or(global_.size.value_or(header.size));
  member.is_sparse =
      header.type == 'S' || (is_file(header.type) && (pax.is_sparse || global_.is_sparse));
  return member;
}

void TarChain::take_member(const Member& member) {
  const auto refuse = [&](std::string_view is, std::string_view advice) {
    fail(message("member ", quoted(member.name), " at byte ", header_offset_, " is ", is), advice);
  };
  if (std::ssize(member.name) > kMostNameBytes) {
    fail(message("the name of the member at byte ", header_offset_, " has ", member.name.size(),
                 " bytes, more than ", kMostNameBytes));
  }
  if (member.is_sparse) {
    refuse("a sparse file, whose zeros are not in the archive", "write it anew without tar -S");
  }
  if (member.type == '2') {
    refuse(message("a symbolic link to ", quoted(member.link)),
           "write the archive anew with tar --dereference, which stores the files themselves");
  }
  if (member.type == 'M') {
    refuse("the rest of a file that begins in another volume", "write it anew as one archive");
  }
  if (member.type == '1') return take_hard_link(member);
  if (member.size > room()) check_size(member.size, message("member ", quoted(member.name)));
  const bool is_old_folder = member.type == '\0' && member.name.ends_with('/');
  if (is_file(member.type) && !is_old_folder) add(member.name, data_offset(), member.size);
  expect_header(data_offset() + member.size);
}

void TarChain::take_hard_link(const Member& member) {
  for (; num_by_name_ < members_.count(); ++num_by_name_) {
    by_name_[std::string(without_dot(members_.name(num_by_name_)))] = num_by_name_;
  }
  const auto found = by_name_.find(std::string(without_dot(member.link)));
  if (found == by_name_.end()) {
    fail(message("member ", quoted(member.name), " at byte ", header_offset_, " is a hard link to ",
                 quoted(member.link), ", which is no file before it in the archive"),
         "write the archive anew with tar --hard-dereference, which stores the files themselves");
  }
  add(member.name, members_.offsets[found->second], members_.sizes[found->second]);
  expect_header(data_offset());
}

void TarChain::add(std::string_view name, int64_t offset, int64_t size) {
  if (std::ssize(members_.offsets) >= kMostMembers) {
    fail(message("there are more than ", kMostMembers, " members"), "write smaller archives");
  }
  members_.add(name, offset, size);
}

void TarChain::check_size(int64_t size, std::string_view what) const {
  if (size <= room()) return;
  fail(message(what, " at byte ", header_offset_, " has ", size, " bytes, but the object has only ",
               room(), " more: it was cut off"));
}

void TarChain::expect_header(int64_t offset) {
  expects_ = Expects::header;
  const int64_t begin =
      offset < size_bytes_ ? std::min(align_up(offset, kTarBlockBytes), size_bytes_) : size_bytes_;
  wanted_ = {begin, std::min(kTarBlockBytes, size_bytes_ - begin)};
  if (wanted_.length == 0) refuse_unused_extensions(begin);
}

void TarChain::refuse_unused_extensions(int64_t end) const {
  if (extensions_.offset < 0) return;
  fail(message("the archive ends at byte ", end, ", but the header at byte ", extensions_.offset,
               " is of a member that follows: it was cut off"));
}

void TarChain::fail(std::string_view what, std::string_view advice) const {
  throw Error(ErrorKind::data,
              message(path_, ": ", what, "; ", advice.empty() ? kCopyAgain : advice));
}

}  // namespace s3io
