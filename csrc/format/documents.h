// Documents of tokens in objects: columns, which somebody else keeps, perhaps a mapped file's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "format/extent.h"
#include "order/document_stream.h"
#include "order/record_order.h"

namespace s3io {

// Of one object. Columns may lie at any address.
struct DocumentTable {
  int64_t num_documents = 0;
  const std::byte* starts = nullptr;   // uint64 [n]: bytes from the start of the object
  const std::byte* lengths = nullptr;  // uint32 or uint64 [n]: tokens
  bool has_wide_lengths = false;
  int64_t end = 0;  // bytes: no document reaches beyond
};

// Immutable; any thread.
class Documents final : public DocumentLengths {
 public:
  // `selected`: the documents of its first epoch alone have tokens in `lengths`; null: all. Throws
  // Error(config).
  Documents(std::vector<DocumentTable> tables, int64_t token_bytes, const RecordOrder* selected,
            std::shared_ptr<const void> owner);

  int64_t num_documents() const override { return first_.back(); }
  int64_t num_objects() const { return static_cast<int64_t>(tables_.size()); }
  // Tables are not believed: never more than the object has room for.
  void lengths(int64_t first, std::span<int64_t> out) const override;
  int64_t length(int64_t document) const;
  // The object that it is in, by its number here, and the document's number in that.
  struct Place {
    size_t object;
    int64_t number;
  };
  Place place_of(int64_t document) const;
  // Has the place of a document brought into the processor's cache, for `find`.
  void prefetch(int64_t document) const {
    const Place place = place_of(document);
    __builtin_prefetch(tables_[place.object].starts + place.number * 8);
  }
  // Where tokens [offset, offset + count) of a document lie; nothing where these are not all
  // within the object.
  std::optional<Extent> find(int64_t document, int64_t offset, int64_t count) const;

 private:
  void select(const RecordOrder& order);
  bool is_selected(int64_t document) const;
  void fill_lengths(const DocumentTable& table, int64_t first, std::span<int64_t> out) const;

  std::vector<DocumentTable> tables_;
  std::vector<int64_t> first_;  // document of each object; the last is the total
  int64_t token_bytes_;
  std::vector<uint8_t> selected_;  // a bit for each, the lowest of a byte first; empty: all are
  std::shared_ptr<const void> owner_;
};

}  // namespace s3io
