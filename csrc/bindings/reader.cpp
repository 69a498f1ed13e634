#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/path.h"
#include "bindings/tensors.h"
#include "reader/batch_fetcher.h"
#include "reader/batch_reader.h"

namespace py = pybind11;

namespace s3io::bindings {
namespace {

using std::string_view_literals::operator""sv;

std::shared_ptr<RecordSource> make_source(std::shared_ptr<Store> store, const Objects& objects,
                                          std::shared_ptr<BatchForm> form, int64_t chunk_bytes,
                                          int depth, double read_timeout_s) {
  return std::make_shared<RecordSource>(
      std::move(store), objects, std::move(form),
      ReadOptions{.chunk_bytes = chunk_bytes, .depth = depth, .read_timeout_s = read_timeout_s});
}

struct NamedCounter {
  const char* name;  // "..._wait_s": nanoseconds, which Python gets as seconds
  int64_t value;
};

// All of them, in the order of their notes on a board.
auto named_counters(const ReaderCounters& counters) {
  return std::array{
      NamedCounter{"batches", counters.batches.load()},
      NamedCounter{"batch_bytes", counters.batch_bytes.load()},
      NamedCounter{"requests", counters.reads.requests.load()},
      NamedCounter{"direct_bytes", counters.reads.direct_bytes.load()},
      NamedCounter{"cached_bytes", counters.reads.cached_bytes.load()},
      NamedCounter{"buffered_bytes", counters.reads.buffered_bytes.load()},
      NamedCounter{"retries", counters.reads.retries.load()},
      NamedCounter{"short_reads", counters.reads.short_reads.load()},
      NamedCounter{"direct_refused", counters.reads.direct_refused.load()},
      NamedCounter{"copied_bytes", counters.copied_bytes.load()},
      NamedCounter{"converted_bytes", counters.converted_bytes.load()},
      NamedCounter{"oversize_batches", counters.oversize_batches.load()},
      NamedCounter{"spilled_batches", counters.spilled_batches.load()},
      NamedCounter{"quarantined_buffers", counters.quarantined_buffers.load()},
      NamedCounter{"filled_bytes", counters.reads.filled_bytes.load()},
      NamedCounter{"reader_wait_s", counters.reader_wait_ns.load()},
      NamedCounter{"consumer_wait_s", counters.consumer_wait_ns.load()},
      NamedCounter{"verified_bytes", counters.reads.verified_bytes.load()},
      NamedCounter{"unverified_bytes", counters.reads.unverified_bytes.load()},
  };
}

py::object in_unit(std::string_view name, int64_t value) {
  if (name.ends_with("_wait_s")) return py::float_(static_cast<double>(value) * 1e-9);
  return py::int_(value);
}

StatsDict source_stats(RecordSource& source) {
  StatsDict dict;
  for (const auto& [name, value] : named_counters(source.counters())) {
    dict[name] = in_unit(name, value);
  }
  return dict;
}

// Adds what was counted since the last call to the board's notes, where other processes see it.
void publish(ReaderCounters& counters, EpochBoard& board) {
  const auto now = named_counters(counters);
  static_assert(std::tuple_size_v<decltype(now)> <= EpochBoard::kNotes);
  for (size_t note = 0; note < now.size(); ++note) {
    const int64_t added = now[note].value - counters.published[note].exchange(now[note].value);
    if (added != 0) board.add_note(note, added);
  }
}

// By the bits of the board's marks.
constexpr std::array kMarkedKinds = {"uring", "threads", "2 MiB", "4 KiB", "s3"};

uint32_t marks_of(std::string_view engine, const BufferPool* pool) {
  const bool has_huge_pages = pool != nullptr && pool->slab()->huge_pages() > 0;
  const bool has_small_pages = pool != nullptr && pool->slab()->small_pages() > 0;
  return uint32_t{engine == "uring"} | uint32_t{engine == "threads"} << 1 |
         uint32_t{has_huge_pages} << 2 | uint32_t{has_small_pages} << 3 |
         uint32_t{engine == "s3"} << 4;
}

// A BatchReader as a Python iterator.
class BatchIterator {
 public:
  BatchIterator(std::shared_ptr<RecordSource> source, const EpochPlan& plan,
                std::optional<std::shared_ptr<BufferPool>> pool,
                const BatchReader::Options& options,
                std::optional<std::shared_ptr<EpochBoard>> board)
      : source_(std::move(source)),
        reader_(source_, plan, pool.value_or(nullptr), options),
        pool_(pool.value_or(nullptr)),
        board_(board.value_or(nullptr)) {
    if (board_ == nullptr) return;
    const auto counters = named_counters(source_->counters());
    const auto* spilled =
        std::find_if(counters.begin(), counters.end(),
                     [](const NamedCounter& one) { return one.name == "spilled_batches"sv; });
    // By any worker.
    warned_ = board_->note(static_cast<size_t>(spilled - counters.begin())) > 0;
  }

  // Closing may wait for reads in flight: not with the GIL.
  ~BatchIterator() { close(); }
  BatchIterator(const BatchIterator&) = delete;
  BatchIterator& operator=(const BatchIterator&) = delete;

  py::object next() {
    bool more = false;
    {
      const NoGil no_gil;
      more = reader_.next(batch_, on_wait_);
    }
    if (board_ != nullptr) {
      publish(source_->counters(), *board_);
      board_->add_marks(marks_of(reader_.engine_name(), pool_.get()));
    }
    if (!more) throw py::stop_iteration();
    warn_of_spills();
    return batch_tensors(batch_, source_->form().names());
  }

  bool begin_next_epoch(const EpochPlan& plan) { return reader_.begin_next_epoch(plan); }

  void close() {
    const NoGil no_gil;
    reader_.close();
  }

  std::string engine_name() const { return reader_.engine_name(); }

 private:
  void warn_of_spills() {
    if (warned_ || source_->counters().spilled_batches == spilled_before_) return;
    warned_ = true;
    warn(
        "the batches that are still referenced hold nearly all buffers of the pool: batches are "
        "copied out of it from here on, which is slower. Drop batches earlier, or raise "
        "BufferPoolConfig.capacity (pool=BufferPoolConfig(...))");
  }

  std::shared_ptr<RecordSource> source_;
  BatchReader reader_;
  std::shared_ptr<BufferPool> pool_;   // null: an allocation per batch
  std::shared_ptr<EpochBoard> board_;  // in a worker: what tells the main process
  Batch batch_;                        // reused, so that the steady state allocates nothing
  const int64_t spilled_before_ = source_->counters().spilled_batches;
  bool warned_ = false;
  const std::function<void()> on_wait_ = check_signals;
};

py::object fetch(BatchFetcher& fetcher, RecordSource& source, std::vector<int64_t> records,
                 const std::optional<std::shared_ptr<EpochBoard>>& board) {
  Batch batch;
  {
    const NoGil no_gil;
    fetcher.fetch(std::move(records), batch, check_signals);
  }
  if (board.value_or(nullptr) != nullptr) publish(source.counters(), **board);
  return batch_tensors(batch, source.form().names());
}

}  // namespace

StatsDict worker_stats(const EpochBoard& board) {
  StatsDict dict;
  const auto names = named_counters(ReaderCounters{});
  for (size_t note = 0; note < names.size(); ++note) {
    dict[names[note].name] = in_unit(names[note].name, board.note(note));
  }
  return dict;
}

std::vector<std::string> worker_kinds(const EpochBoard& board) {
  std::vector<std::string> kinds;
  for (size_t bit = 0; bit < kMarkedKinds.size(); ++bit) {
    if ((board.marks() >> bit & 1) != 0) kinds.emplace_back(kMarkedKinds[bit]);
  }
  return kinds;
}

void register_reader(py::module_& module) {
  py::class_<RecordSource, std::shared_ptr<RecordSource>>(module, "RecordSource")
      .def(py::init(&make_source), py::kw_only(), py::arg("store"), py::arg("objects"),
           py::arg("form"), py::arg("chunk_bytes"), py::arg("depth"), py::arg("read_timeout_s"))
      .def("stats", &source_stats);

  py::class_<BatchIterator>(module, "BatchIterator")
      .def(py::init([](std::shared_ptr<RecordSource> source, const EpochPlan& plan,
                       std::optional<std::shared_ptr<BufferPool>> pool, bool reads_on,
                       int64_t fill_block_bytes, int64_t window_positions, int64_t share,
                       int64_t count, int processes,
                       std::optional<std::shared_ptr<EpochBoard>> board) {
             return std::make_unique<BatchIterator>(
                 std::move(source), plan, std::move(pool),
                 BatchReader::Options{.reads_on = reads_on,
                                      .fill_block_bytes = fill_block_bytes,
                                      .windows = {window_positions, share, count},
                                      .processes = processes},
                 std::move(board));
           }),
           py::kw_only(), py::arg("source"), py::arg("plan"), py::arg("pool"),
           py::arg("reads_on") = false, py::arg("fill_block_bytes") = 0,
           py::arg("window_positions") = 0, py::arg("share") = 0, py::arg("count") = 1,
           py::arg("processes") = 1, py::arg("board") = py::none(),
           "fill_block_bytes: of ReaderOptions. window_positions, share, count: of a "
           "WindowReadahead. processes: that share the processors. board: to publish counters on.")
      .def("__iter__", [](py::object self) { return self; })
      .def("__next__", &BatchIterator::next)
      .def("begin_next_epoch", &BatchIterator::begin_next_epoch, py::arg("plan"),
           "Goes on after StopIteration, if `plan` is what it has read ahead.")
      .def("close", &BatchIterator::close)
      .def_property_readonly("engine", &BatchIterator::engine_name);

  py::class_<BatchFetcher>(module, "BatchFetcher")
      .def(py::init([](std::shared_ptr<RecordSource> source,
                       std::optional<std::shared_ptr<BufferPool>> pool, int processes) {
             return std::make_unique<BatchFetcher>(std::move(source), pool.value_or(nullptr),
                                                   processes);
           }),
           py::kw_only(), py::arg("source"), py::arg("pool"), py::arg("processes") = 1)
      .def("fetch", &fetch, py::arg("source"), py::arg("records"), py::kw_only(),
           py::arg("board") = py::none());
}

}  // namespace s3io::bindings
