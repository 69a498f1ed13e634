#include "reader/record_source.h"

#include <algorithm>
#include <utility>

#include "base/align.h"
#include "base/processors.h"

namespace s3io {
namespace {

// Direct reads place a record congruent to its place in the file, so that a view needs that to be a
// multiple of the element size: an alignment of at least that size makes it so in memory as well.
int64_t checked_alignment(int64_t alignment) {
  if (!is_power_of_two(alignment) || alignment > kHugePageBytes) {
    throw Error(ErrorKind::config,
                message("alignment must be a power of two of at most 2 MiB, not ", alignment));
  }
  return alignment == 1 ? 1 : std::max(alignment, kFieldAlignment);
}

bool is_view_everywhere(const Field& field, const RecordLayout& layout, const ShardTable& shards,
                        int64_t alignment) {
  return std::all_of(shards.shards().begin(), shards.shards().end(), [&](const Shard& shard) {
    return can_view(layout, field, shard.header_bytes % alignment);
  });
}

}  // namespace

RecordSource::RecordSource(ShardTable shards, RecordLayout layout,
                           std::vector<FileIdentity> identities, int64_t alignment,
                           ReadOptions options)
    : shards_(std::move(shards)),
      layout_(std::move(layout)),
      identities_(std::move(identities)),
      alignment_(checked_alignment(alignment)),
      options_(std::move(options)),
      files_(options_.direct, alignment_ > 1 ? alignment_ : 0) {
  layout_.validate();
  check_offsets(shards_, layout_);
  if (identities_.size() != shards_.shards().size()) {
    throw Error(ErrorKind::config, "one identity per shard is needed");
  }
  options_.chunk_bytes = align_up(std::max<int64_t>(options_.chunk_bytes, 1), alignment_);
  for (const Field& field : layout_.fields) {
    is_view_.push_back(is_view_everywhere(field, layout_, shards_, alignment_));
  }
}

int64_t RecordSource::batch_bytes(int64_t count) const {
  constexpr int64_t kMost = int64_t{1} << 46;
  const int64_t per_record = std::max(layout_.record_bytes, layout_.record_stride) + 2 * alignment_;
  const auto throw_too_large = [&] {
    throw Error(ErrorKind::config,
                message("a batch of ", count, " records of ", layout_.record_bytes,
                        " bytes is too large; lower batch_size"));
  };
  if (count < 0 || count > kMost / per_record) throw_too_large();
  int64_t bytes = 0;
  if (options_.with_record_numbers) bytes = align_up(count * 8, kFieldAlignment);
  for (size_t index = 0; index < layout_.fields.size(); ++index) {
    if (is_view_[index]) continue;
    bytes += align_up(output_bytes(layout_.fields[index], count), kFieldAlignment);
    if (bytes > kMost) throw_too_large();  // fields may overlap, so that their sum has no bound
  }
  bytes = align_up(bytes, std::max(alignment_, kFieldAlignment));
  return bytes + (count > 0 ? max_landing_bytes(count, layout_, alignment_) : 0);
}

void RecordSource::check_buffers(const BufferPoolConfig& pool, int64_t batch_records) const {
  const int64_t needed = batch_bytes(batch_records);
  if (pool.buffer_size < needed) {
    throw Error(ErrorKind::config,
                message("BufferPoolConfig.buffer_size is ", pool.buffer_size,
                        " bytes, but a batch of ", batch_records, " records needs ", needed,
                        " (records, alignment and conversions included); raise it or lower "
                        "batch_size"));
  }
  check_alignment(pool.alignment);
}

void RecordSource::check_alignment(int64_t pool_alignment) const {
  if (pool_alignment >= alignment_) return;
  throw Error(ErrorKind::config,
              message("BufferPoolConfig.alignment is ", pool_alignment,
                      ", but direct reads of these files need ", alignment_, "; raise it"));
}

std::shared_ptr<DirectFile> RecordSource::open(int64_t shard) {
  const auto index = static_cast<size_t>(shard);
  std::shared_ptr<DirectFile> file = files_.open(shards_.shards()[index].path);
  const std::string what = file->difference_from(identities_[index]);
  if (!what.empty()) {
    throw Error(ErrorKind::file_changed,
                message(file->path(), ": is not as it was when the data set was made: ", what,
                        "; make the data set anew, or restore the file"));
  }
  // Batches are placed for `alignment_`: a file that needs more is not read directly.
  if (file->can_read_direct() && file->alignment() > alignment_) {
    if (!file->can_read_buffered()) {
      throw Error(ErrorKind::direct_io,
                  message(file->path(), ": direct reads need an alignment of ", file->alignment(),
                          ", more than when the data set was made; make the data set anew"));
    }
    file->refuse_direct();
  }
  return file;
}

std::unique_ptr<RangeReader> RecordSource::make_reader(const ReaderOptions& options) {
  auto engine = make_engine(
      {.kind = options_.engine, .depth = options_.depth, .any_thread = options.any_thread});
  // Faults are the engine's: with them nothing goes past it.
  const int copiers = options_.faults == nullptr ? copiers_for(options.processes) : 1;
  return std::make_unique<ReadQueue>(with_faults(std::move(engine), options_.faults.get()),
                                     ReadQueueOptions{.chunk_bytes = options_.chunk_bytes,
                                                      .copiers = copiers,
                                                      .fill_block_bytes = options.fill_block_bytes},
                                     &counters_.reads);
}

}  // namespace s3io
