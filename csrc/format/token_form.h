// Tokens of documents. A record is a window of them, which may have parts of several documents, or
// a whole document. Whatever they lie in, the tokens of a batch are gathered to one tensor, and
// converted on the way.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "format/batch_form.h"
#include "format/documents.h"
#include "format/object_names.h"
#include "format/record_layout.h"
#include "order/document_stream.h"

namespace s3io {

enum class TokenRecords : uint8_t {
  windows,    // a tensor [B, window]
  documents,  // ragged
  padded,     // a tensor [B, L] as long as the longest document of the batch, zeros behind others
};

// Documents of successive objects. As windows, they are a stream of their own.
struct TokenPart {
  std::shared_ptr<const Documents> documents;
  std::shared_ptr<const DocumentBlocks> blocks = nullptr;  // of windows; else null
};

class TokenForm final : public BatchForm {
 public:
  // Of windows, each part has so many record numbers: window w of n in epoch e is e * n + w. The
  // number says everything, as docs/design.md wants it.
  static constexpr int64_t kNumbersOfPart = int64_t{1} << 48;
  // What lies no farther apart is read together: that costs less than another read.
  static constexpr int64_t kMostGap = 4096;

  struct Layout {
    Field token = {};  // without a shape
    TokenRecords records = TokenRecords::windows;
    int64_t window = 1;           // tokens
    int64_t stride = 1;           // from one window's start to the next one's
    bool with_documents = false;  // of windows: as one sequence, with where each document begins
    int64_t longest = 0;          // of documents: tokens
    int64_t kept_blocks = 1;      // of each part's stream
    int64_t typical_bytes = 1;
  };

  // `names` of the objects of all parts. Throws Error(config).
  TokenForm(Layout layout, std::vector<TokenPart> parts, std::shared_ptr<const ObjectNames> names,
            const Options& options);

  // In a stream of so many tokens.
  static int64_t windows_in(int64_t tokens, int64_t window, int64_t stride) {
    return tokens < window ? 0 : (tokens - window) / stride + 1;
  }

  const Options& options() const override { return options_; }
  int64_t num_records() const override { return first_.back(); }
  const std::vector<std::string>& names() const override { return names_; }
  int64_t typical_bytes() const override { return layout_.typical_bytes; }
  bool may_exceed_buffers() const override { return true; }
  // Sorted by objects and offsets: the parts of a window lie in any order.
  void locate(std::span<const int64_t> records, std::vector<Extent>& out) const override;
  int64_t most_bytes(int64_t count) const override;
  std::unique_ptr<BatchWork> make_work() const override;

 private:
  class Work;
  using Pieces = std::vector<DocumentStream::Piece>;

  // Appends the extents of a record, one for each document in it; `pieces` is memory for that.
  void locate(int64_t record, Pieces& pieces, std::vector<Extent>& out) const;
  void append(size_t part, const DocumentStream::Piece& piece, std::vector<Extent>& out) const;
  int64_t run_alignment() const { return std::max(options_.alignment, kFieldAlignment); }
  // Of a buffer, before what is read: `count` records with so many tokens and pieces in all, or
  // with `tokens` each where they are padded.
  int64_t front_bytes(int64_t count, int64_t tokens, int64_t pieces) const;

  Layout layout_;
  std::vector<TokenPart> parts_;
  std::vector<std::unique_ptr<DocumentStream>> streams_;  // of windows
  std::vector<int64_t> windows_;                          // of each part, in an epoch
  std::shared_ptr<const ObjectNames> objects_;
  Options options_;
  std::vector<int64_t> first_;          // record of each part; the last is the total
  std::vector<int64_t> first_objects_;  // of each part
  std::vector<std::string> names_;
};

}  // namespace s3io
