#include "format/documents.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "format/column.h"

namespace s3io {
namespace {

template <typename Number>
void copy_lengths(const std::byte* column, int64_t first, uint64_t most, std::span<int64_t> out) {
  for (int64_t& length : out) {
    length = static_cast<int64_t>(std::min<uint64_t>(number_at<Number>(column, first++), most));
  }
}

}  // namespace

Documents::Documents(std::vector<DocumentTable> tables, int64_t token_bytes,
                     const RecordOrder* selected, std::shared_ptr<const void> owner)
    : tables_(std::move(tables)), token_bytes_(token_bytes), owner_(std::move(owner)) {
  constexpr int64_t kMostDocuments = int64_t{1} << 40;
  if (token_bytes < 1) throw Error(ErrorKind::config, "a token has at least 1 byte");
  first_.push_back(0);
  for (const DocumentTable& table : tables_) {
    if (table.num_documents < 0 || table.num_documents > kMostDocuments - first_.back() ||
        table.end < 0) {
      throw Error(ErrorKind::config,
                  message("an object cannot have ", table.num_documents, " documents"));
    }
    first_.push_back(first_.back() + table.num_documents);
  }
  if (selected != nullptr) select(*selected);
}

void Documents::select(const RecordOrder& order) {
  constexpr int64_t kAtOnce = 4096;
  if (order.num_records() > num_documents()) {
    throw Error(ErrorKind::config, message("of ", num_documents(), " documents, ",
                                           order.num_records(), " cannot be selected"));
  }
  selected_.resize(static_cast<size_t>((num_documents() + 7) / 8));
  const std::unique_ptr<EpochOrder> epoch = order.epoch(0);
  std::vector<int64_t> numbers;
  for (int64_t first = 0; first < order.num_positions(); first += kAtOnce) {
    numbers.resize(static_cast<size_t>(std::min(kAtOnce, order.num_positions() - first)));
    epoch->records(first, numbers);
    for (const int64_t number : numbers) {
      selected_[static_cast<size_t>(number / 8)] |= static_cast<uint8_t>(1U << number % 8);
    }
  }
}

Documents::Place Documents::place_of(int64_t document) const {
  const auto above = std::upper_bound(first_.begin(), first_.end(), document);
  const auto object = static_cast<size_t>(above - first_.begin()) - 1;
  return {object, document - first_[object]};
}

bool Documents::is_selected(int64_t document) const {
  if (selected_.empty()) return true;
  return (selected_[static_cast<size_t>(document / 8)] >> document % 8 & 1) != 0;
}

int64_t Documents::length(int64_t document) const {
  const Place place = place_of(document);
  int64_t length = 0;
  fill_lengths(tables_[place.object], place.number, {&length, 1});
  return length;
}

void Documents::fill_lengths(const DocumentTable& table, int64_t first,
                             std::span<int64_t> out) const {
  const auto most = static_cast<uint64_t>(table.end / token_bytes_);
  if (table.has_wide_lengths) {
    copy_lengths<uint64_t>(table.lengths, first, most, out);
  } else {
    copy_lengths<uint32_t>(table.lengths, first, most, out);
  }
}

void Documents::lengths(int64_t first, std::span<int64_t> out) const {
  if (out.empty()) return;
  Place place = place_of(first);
  for (std::span<int64_t> left = out; !left.empty(); place = {place.object + 1, 0}) {
    const DocumentTable& table = tables_[place.object];
    const auto part = left.first(static_cast<size_t>(
        std::min<int64_t>(table.num_documents - place.number, std::ssize(left))));
    fill_lengths(table, place.number, part);
    left = left.subspan(part.size());
  }
  if (selected_.empty()) return;
  for (int64_t& length : out) {
    if (!is_selected(first++)) length = 0;
  }
}

std::optional<Extent> Documents::find(int64_t document, int64_t offset, int64_t count) const {
  const Place place = place_of(document);
  const DocumentTable& table = tables_[place.object];
  const uint64_t start = number_at<uint64_t>(table.starts, place.number);
  const auto end = static_cast<uint64_t>(table.end);
  if (start > end) return std::nullopt;
  const auto room = static_cast<int64_t>(end - start) / token_bytes_;  // tokens
  if (offset > room || count > room - offset) return std::nullopt;
  return Extent{static_cast<int64_t>(place.object),
                static_cast<int64_t>(start) + offset * token_bytes_, count * token_bytes_};
}

}  // namespace s3io
