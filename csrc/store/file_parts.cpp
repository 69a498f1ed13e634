#include "store/file_parts.h"

#include <algorithm>
#include <array>

#include "base/crc32c.h"
#include "base/error.h"

namespace s3io {
namespace {

constexpr size_t kHotBytes = 16 << 10;  // stays in the first-level cache between two looks at it
constexpr std::array<std::byte, 4096> kZeros{};

void check(bool fits, const ByteWriter& writer, int64_t begin, int64_t last_end) {
  if (fits) return;
  throw Error(ErrorKind::config,
              message(writer.path(), ": what is to begin at byte ", begin,
                      " has no place there: what is before it ends at ", last_end));
}

void check_all(const ByteWriter& writer, std::span<const FilePart> parts,
               std::span<const FilePiece> pieces) {
  int64_t last_end = writer.size();
  for (const FilePart& part : parts) {
    const bool has_its_pieces = part.num_pieces <= pieces.size();
    check(part.begin >= last_end && part.end >= part.begin && has_its_pieces, writer, part.begin,
          last_end);
    last_end = part.begin;
    for (const FilePiece& piece : pieces.first(part.num_pieces)) {
      const bool is_behind = piece.begin >= last_end && piece.begin <= part.end;
      check(is_behind && std::ssize(piece.data) <= part.end - piece.begin, writer, piece.begin,
            last_end);
      last_end = piece.begin + std::ssize(piece.data);
    }
    pieces = pieces.subspan(part.num_pieces);
    last_end = part.end;
  }
}

// Appends to the file, and to the sum of a part of it.
class SummingWriter {
 public:
  SummingWriter(ByteWriter& writer, const WaitCallback& on_wait)
      : writer_(writer), on_wait_(on_wait) {}

  void write(std::span<const std::byte> data) {
    while (!data.empty()) {
      const auto hot = data.first(std::min(kHotBytes, data.size()));
      sum_ = crc32c(sum_, hot);
      writer_.write(hot, on_wait_);
      data = data.subspan(hot.size());
    }
  }

  void zeros_up_to(int64_t end) {
    for (int64_t count = end - writer_.size(); count > 0; count = end - writer_.size()) {
      write(std::span(kZeros).first(static_cast<size_t>(std::min(count, std::ssize(kZeros)))));
    }
  }

  void begin_part() { sum_ = 0; }
  uint32_t sum() const { return sum_; }

 private:
  ByteWriter& writer_;
  const WaitCallback& on_wait_;
  uint32_t sum_ = 0;
};

}  // namespace

std::vector<uint32_t> write_parts(ByteWriter& writer, std::span<const FilePart> parts,
                                  std::span<const FilePiece> pieces, const WaitCallback& on_wait) {
  check_all(writer, parts, pieces);
  std::vector<uint32_t> sums;
  sums.reserve(parts.size());
  SummingWriter summing(writer, on_wait);
  for (const FilePart& part : parts) {
    summing.zeros_up_to(part.begin);
    summing.begin_part();
    for (const FilePiece& piece : pieces.first(part.num_pieces)) {
      summing.zeros_up_to(piece.begin);
      summing.write(piece.data);
    }
    summing.zeros_up_to(part.end);
    sums.push_back(summing.sum());
    pieces = pieces.subspan(part.num_pieces);
  }
  return sums;
}

}  // namespace s3io
