#include "reader/record_source.h"

#include <algorithm>
#include <utility>

#include "base/align.h"

namespace s3io {

Objects copied_objects(const std::vector<std::string>& paths, std::vector<ObjectVersion> versions) {
  const auto copy = std::make_shared<const std::vector<ObjectVersion>>(std::move(versions));
  return {std::make_shared<ObjectNames>(paths), *copy, copy};
}

RecordSource::RecordSource(std::shared_ptr<Store> store, Objects objects,
                           std::shared_ptr<const BatchForm> form, ReadOptions options)
    : store_(std::move(store)),
      objects_(std::move(objects)),
      form_(std::move(form)),
      options_(options) {
  if (std::ssize(objects_.versions) != objects_.paths->count()) {
    throw Error(ErrorKind::config, "one version per object is needed");
  }
  options_.chunk_bytes = align_up(std::max<int64_t>(options_.chunk_bytes, 1), alignment());
}

void RecordSource::check_buffers(const BufferPoolConfig& pool, int64_t batch_records) const {
  const int64_t needed = form_->most_bytes(batch_records);
  if (pool.buffer_size < needed && !form_->may_exceed_buffers()) {
    throw Error(ErrorKind::config,
                message("BufferPoolConfig.buffer_size is ", pool.buffer_size,
                        " bytes, but a batch of ", batch_records, " records needs ", needed,
                        " (records, alignment and conversions included); raise it or lower "
                        "batch_size"));
  }
  check_alignment(pool.alignment);
}

void RecordSource::check_alignment(int64_t pool_alignment) const {
  if (pool_alignment >= alignment()) return;
  throw Error(ErrorKind::config,
              message("BufferPoolConfig.alignment is ", pool_alignment,
                      ", but direct reads of these files need ", alignment(), "; raise it"));
}

void RecordSource::describe(int64_t object, ObjectToOpen& out) const {
  out.path = (*objects_.paths)[object];  // keeps its memory
  out.version = objects_.versions[static_cast<size_t>(object)];
}

std::shared_ptr<Object> RecordSource::open(int64_t object) {
  thread_local std::string path;  // keeps its memory: the steady state allocates nothing
  path = (*objects_.paths)[object];
  return store_->open(path, objects_.versions[static_cast<size_t>(object)]);
}

std::unique_ptr<RangeReader> RecordSource::make_reader(ReaderOptions options) {
  options.depth = options_.depth;
  options.chunk_bytes = options_.chunk_bytes;
  return store_->make_reader(options, counters_.reads);
}

}  // namespace s3io
