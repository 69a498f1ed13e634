// Records of one size at equal distances in every object: views of them where they landed, wherever
// that is possible.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "format/batch_form.h"
#include "format/placement.h"
#include "format/record_layout.h"
#include "format/shard_table.h"

namespace s3io {

class FixedForm final : public BatchForm {
 public:
  // `paths` of the shards, for errors. Throws Error(config) for a layout that is none, or offsets
  // that overflow.
  FixedForm(ShardTable shards, RecordLayout layout, const ObjectNames& paths,
            const Options& options);

  const Options& options() const override { return options_; }
  int64_t num_records() const override { return shards_.num_records(); }
  const std::vector<std::string>& names() const override { return names_; }
  int64_t typical_bytes() const override { return layout_.record_stride; }
  void locate(std::span<const int64_t> records, std::vector<Extent>& out) const override;
  int64_t most_bytes(int64_t count) const override;
  std::unique_ptr<BatchWork> make_work() const override;

 private:
  class Work;

  int64_t aux_bytes(int64_t count) const;

  ShardTable shards_;
  RecordLayout layout_;
  Options options_;
  std::vector<std::string> names_;
  std::vector<bool> is_view_;  // by field: delivered where it landed, in every object
};

}  // namespace s3io
