// A file that is being written, as Python sees it.
#pragma once

#include <pybind11/pybind11.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <tuple>
#include <vector>

#include "base/fork_owned.h"
#include "bindings/sample_parts.h"
#include "store/byte_writer.h"

namespace s3io::bindings {

// A ByteWriter that several Python threads may call, one after the other; `cancel` ends the call
// that another one is in. A forked child cannot use it, and `cancel` does nothing there: a thread
// of the parent's may have had the lock.
class Writer {
 public:
  explicit Writer(std::unique_ptr<ByteWriter> writer) : writer_(std::move(writer)) {}
  ~Writer();
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  // Without `copy` the buffer is held until it is written.
  void write(const pybind11::buffer& data, bool copy);
  void write_rows(const pybind11::buffer& rows, int64_t row_bytes, int64_t stride_bytes);
  // The CRC-32C of each sample.
  std::vector<uint32_t> write_samples(const IntList& starts, const IntList& sizes,
                                      const std::vector<ColumnTuple>& columns);
  // (size in bytes, checksum, whether the file keeps the checksum)
  std::tuple<int64_t, std::optional<uint32_t>, bool> finish();
  void cancel();
  int64_t size();

 private:
  // Calls it without the GIL, with the writer to itself; then lets go of what is written.
  template <typename Work>
  void run(Work work);
  void check_waiting() const;                          // for calls that wait, as their callback
  void warn_of(const std::string& left_behind) const;  // with the GIL; nothing where it is empty

  const HomeProcess home_ = {};
  std::atomic<bool> cancelling_{false};
  std::mutex mutex_;  // taken without the GIL only
  std::unique_ptr<ByteWriter> writer_;
};

void register_writer(pybind11::module_& module);

}  // namespace s3io::bindings
