// Tar archives of any bytes, and of any headers with right checksums: refused, or every member lies
// within the archive, and samples are made of neighbours. What is cut off takes nothing else along.
#include "format/tar_chain.h"

#include <cstdio>

#include "base/align.h"
#include "engine/input.h"
#include "format/member_names.h"

namespace s3io::fuzz {
namespace {

constexpr size_t kMostBytes = 1 << 18;
constexpr size_t kMostExtensions = 16;

void put(std::string& block, size_t at, size_t length, std::string text) {
  text.resize(std::min(text.size(), length));
  block.replace(at, text.size(), text);
}

std::string octal(uint64_t number) {
  char text[32];
  std::snprintf(text, sizeof(text), "%011llo", static_cast<unsigned long long>(number));
  return text;
}

std::string any_size(Input& input, size_t data_bytes) {
  if (input.flag()) return octal(data_bytes);
  if (input.flag()) return octal(static_cast<uint64_t>(input.number()));
  std::string base256(12, '\0');
  base256[0] = '\x80';
  uint64_t number = static_cast<uint64_t>(input.number());
  for (size_t at = 11; at > 3; --at, number >>= 8) base256[at] = static_cast<char>(number);
  return base256;
}

std::string pax_record(const std::string& keyword, const std::string& value) {
  const std::string rest = " " + keyword + "=" + value + "\n";
  size_t length = rest.size() + 1;
  while (std::to_string(length).size() + rest.size() != length) ++length;
  return std::to_string(length) + rest;
}

std::string any_data(Input& input, char type) {
  std::string data;
  if (type != 'x' && type != 'g') return input.text();
  constexpr const char* kKeywords[] = {"path", "linkpath", "size", "GNU.sparse.name", "mtime"};
  while (data.size() < 4096 && input.flag()) {
    const char* keyword = kKeywords[input.between(0, 4)];
    data += pax_record(keyword, input.flag() ? std::to_string(input.number()) : input.text());
  }
  return input.flag() ? data : data + input.text();
}

std::string any_member(Input& input) {
  constexpr char kTypes[] = {'0', 'x', 'L', '1', 'g', '\0', 'K', '5', '2', 'S', 'M', 'V', '7', '3'};
  const char type = kTypes[input.between(0, std::ssize(kTypes) - 1)];
  const std::string data = any_data(input, type);
  std::string block(512, '\0');
  put(block, 0, 100, input.text());
  put(block, 124, 12, any_size(input, data.size()));
  put(block, 148, 8, "        ");
  block[156] = type;
  put(block, 157, 100, input.text());
  if (input.flag())
    put(block, 257, 8,
        std::string("ustar\0"
                    "00",
                    8));
  put(block, 345, 155, input.text());
  uint64_t sum = 0;
  for (const char byte : block) sum += static_cast<unsigned char>(byte);
  put(block, 148, 8, octal(sum).substr(4) + ' ');
  std::string member = block + data;
  member.resize(static_cast<size_t>(align_up(std::ssize(member), kTarBlockBytes)));
  return member;
}

std::string any_archive(Input& input) {
  if (input.flag()) return input.rest();
  std::string archive;
  while (!input.empty() && archive.size() < kMostBytes) {
    archive += input.between(0, 15) > 0 ? any_member(input) : std::string(512, '\0');
  }
  return archive;
}

// False where the archive is refused.
bool follow(const std::string& archive, TarMembers& members) {
  try {
    TarChain chain("a.tar", std::ssize(archive), members);
    int64_t behind = 0;
    while (chain.wanted().length > 0) {
      const ByteRange wanted = chain.wanted();
      require(wanted.offset >= behind && wanted.length > 0 && wanted.end() <= std::ssize(archive));
      require(wanted.length <= HeaderChain::kMostBytes);
      behind = wanted.end();
      const std::string part =
          archive.substr(static_cast<size_t>(wanted.offset), static_cast<size_t>(wanted.length));
      chain.take(std::as_bytes(std::span(part)));
    }
    return true;
  } catch (const Error& error) {
    const std::string text = error.what();
    require(error.kind() == ErrorKind::data && text.starts_with("a.tar: ") && text.size() < 2000);
    return false;
  }
}

void check_members(const TarMembers& members, int64_t size_bytes) {
  int64_t name_end = 0;
  for (size_t member = 0; member < members.count(); ++member) {
    const int64_t offset = members.offsets[member];
    const int64_t size = members.sizes[member];
    require(offset >= kTarBlockBytes && size >= 0 && size <= size_bytes - offset);
    require(offset % kTarBlockBytes == 0);
    require(members.name_ends[member] >= name_end);
    require(members.name_ends[member] - name_end <= TarChain::kMostNameBytes);
    name_end = members.name_ends[member];
  }
  require(name_end == std::ssize(members.names));
}

void check_samples(const TarMembers& members) {
  try {
    const SampleNames samples = group_member_names("a.tar", members, kMostExtensions);
    int64_t last = -1;
    for (size_t member = 0; member < members.count(); ++member) {
      const int64_t sample = samples.sample_of[member];
      if (sample < 0) continue;
      require(sample == last || sample == last + 1);
      last = sample;
      const auto row = static_cast<size_t>(sample);
      const auto begin = static_cast<size_t>(row == 0 ? 0 : samples.key_ends[row - 1]);
      const auto end = static_cast<size_t>(samples.key_ends[row]);
      const auto extension = static_cast<size_t>(samples.extension_of[member]);
      const std::string key = samples.keys.substr(begin, end - begin);
      require(!key.empty() && key + "." + samples.extensions[extension] == members.name(member));
    }
    require(last + 1 == std::ssize(samples.key_ends));
    require(samples.extensions.size() <= kMostExtensions);
  } catch (const Error& error) {
    require(error.kind() == ErrorKind::data);
  }
}

void read(Input& input) {
  const auto cut = static_cast<size_t>(input.between(0, 8192));
  const std::string archive = any_archive(input);
  TarMembers members;
  const bool is_right = follow(archive, members);
  check_members(members, std::ssize(archive));
  check_samples(members);
  TarMembers before;
  if (!follow(archive.substr(0, cut), before) || !is_right) return;
  require(before.count() <= members.count() && members.names.starts_with(before.names));
}

}  // namespace
}  // namespace s3io::fuzz

S3IO_FUZZ_TARGET(s3io::fuzz::read)
