#include "format/token_form.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "format/token_work.h"

namespace s3io {
namespace {

constexpr int64_t kMostBatchBytes = int64_t{1} << 46;
constexpr int64_t kMostWindow = int64_t{1} << 31;

void check_tokens(const TokenForm::Layout& layout) {
  RecordLayout{{layout.token}, size_bytes(layout.token.type), size_bytes(layout.token.type)}
      .validate();
  if (layout.window < 1 || layout.window > kMostWindow || layout.stride < 1 || layout.longest < 0 ||
      layout.longest > kMostBatchBytes || layout.typical_bytes < 1) {
    throw Error(ErrorKind::config, message("windows of ", layout.window, " tokens every ",
                                           layout.stride, " tokens cannot be"));
  }
}

}  // namespace

TokenForm::TokenForm(Layout layout, std::vector<TokenPart> parts,
                     std::shared_ptr<const ObjectNames> names, const Options& options)
    : layout_(std::move(layout)),
      parts_(std::move(parts)),
      objects_(std::move(names)),
      options_(options) {
  options_.alignment = checked_alignment(options.alignment);
  check_tokens(layout_);
  const bool is_windows = layout_.records == TokenRecords::windows;
  first_.push_back(0);
  int64_t objects = 0;
  for (const TokenPart& part : parts_) {
    if (is_windows != (part.blocks != nullptr)) {
      throw Error(ErrorKind::config, "windows need blocks of documents, and nothing else does");
    }
    first_objects_.push_back(objects);
    objects += part.documents->num_objects();
    first_.push_back(first_.back() +
                     (is_windows ? kNumbersOfPart : part.documents->num_documents()));
    if (!is_windows) continue;
    windows_.push_back(windows_in(part.blocks->num_tokens(), layout_.window, layout_.stride));
    streams_.push_back(std::make_unique<DocumentStream>(part.blocks, layout_.kept_blocks));
  }
  if (objects != objects_->count()) {
    throw Error(ErrorKind::config, message("the documents are of ", objects,
                                           " objects, but there are ", objects_->count()));
  }
  if (layout_.with_documents) {
    names_ = {"position_ids", "cu_seqlens", "input_ids"};
  } else {
    names_ = {layout_.records == TokenRecords::documents ? "tokens" : ""};
  }
}

void TokenForm::locate(int64_t record, Pieces& pieces, std::vector<Extent>& out) const {
  const auto above = std::upper_bound(first_.begin(), first_.end(), record);
  const auto part = static_cast<size_t>(above - first_.begin()) - 1;
  const int64_t number = record - first_[part];
  if (layout_.records != TokenRecords::windows) {
    const int64_t tokens = parts_[part].documents->length(number);
    if (tokens > 0) append(part, {number, 0, tokens}, out);
    return;
  }
  const int64_t windows = windows_[part];
  if (windows == 0) {
    throw Error(ErrorKind::range, message("record ", record, " does not exist: no window does"));
  }
  pieces.clear();
  streams_[part]->locate(number / windows, number % windows * layout_.stride, layout_.window,
                         pieces);
  for (const DocumentStream::Piece& piece : pieces)
    parts_[part].documents->prefetch(piece.document);
  for (const DocumentStream::Piece& piece : pieces) append(part, piece, out);
}

void TokenForm::append(size_t part, const DocumentStream::Piece& piece,
                       std::vector<Extent>& out) const {
  const Documents& documents = *parts_[part].documents;
  std::optional<Extent> found = documents.find(piece.document, piece.offset, piece.count);
  if (!found) {
    const Documents::Place place = documents.place_of(piece.document);
    throw Error(ErrorKind::data,
                message((*objects_)[first_objects_[part] + static_cast<int64_t>(place.object)],
                        ": document ", place.number,
                        " does not lie within the file, as the table of its documents says: the "
                        "file or the table is damaged, or of another one; copy both again"));
  }
  found->object += first_objects_[part];
  out.push_back(*found);
}

void TokenForm::locate(std::span<const int64_t> records, std::vector<Extent>& out) const {
  Pieces pieces;
  const auto first = static_cast<std::ptrdiff_t>(out.size());
  for (const int64_t record : records) locate(record, pieces, out);
  std::sort(out.begin() + first, out.end(), [](const Extent& a, const Extent& b) {
    return std::pair(a.object, a.offset) < std::pair(b.object, b.offset);
  });
}

int64_t TokenForm::front_bytes(int64_t count, int64_t tokens, int64_t pieces) const {
  int64_t bytes = options_.with_record_numbers ? align_up(count * 8, kFieldAlignment) : 0;
  bytes += align_up(tokens * size_bytes(layout_.token.output), kFieldAlignment);
  if (layout_.with_documents) {
    bytes += align_up(tokens * 8, kFieldAlignment) + align_up(4 * (pieces + 1), kFieldAlignment);
  }
  const bool is_ragged = layout_.with_documents || layout_.records == TokenRecords::documents;
  const int64_t rows = layout_.with_documents ? pieces : count;
  if (is_ragged) bytes += 2 * align_up(8 * rows, kFieldAlignment);
  return align_up(bytes, run_alignment());
}

int64_t TokenForm::most_bytes(int64_t count) const {
  const bool is_windows = layout_.records == TokenRecords::windows;
  const int64_t tokens = is_windows ? layout_.window : layout_.longest;
  const int64_t pieces = is_windows ? tokens : 1;  // where every document has one token
  // Of a token: where it is, where it goes, its position, and its part of the ends.
  const int64_t each = tokens * 64 + pieces * (2 * run_alignment() + kMostGap + 64) + 64;
  if (count < 0 || each > kMostBatchBytes || count > kMostBatchBytes / each) {
    return kMostBatchBytes;
  }
  return front_bytes(count, count * tokens, count * pieces) +
         count * pieces * (2 * run_alignment() + kMostGap) +
         count * tokens * size_bytes(layout_.token.type);
}

std::unique_ptr<BatchWork> TokenForm::make_work() const { return std::make_unique<Work>(*this); }

}  // namespace s3io
