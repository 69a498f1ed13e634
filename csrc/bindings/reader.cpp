#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/path.h"
#include "bindings/tensors.h"
#include "format/fixed_form.h"
#include "io/refused_calls.h"
#include "reader/batch_fetcher.h"
#include "reader/batch_reader.h"
#include "store/file_objects.h"

namespace py = pybind11;

namespace s3io::bindings {
namespace {

using std::string_view_literals::operator""sv;

// (device, inode, size_bytes, modified_ns)
using VersionTuple = std::tuple<uint64_t, uint64_t, int64_t, int64_t>;
// (path, header_bytes, num_records, version)
using ShardTuple = std::tuple<Path, int64_t, int64_t, VersionTuple>;
// (name, type, output type, swap_bytes, offset, shape)
using FieldTuple =
    std::tuple<std::string, std::string, std::string, bool, int64_t, std::vector<int64_t>>;
// (error_number, short_read, lost)
using FaultTuple = std::tuple<int, bool, bool>;

VersionTuple version_tuple(const ObjectVersion& version) {
  return {version.device, version.inode, version.size_bytes, version.modified_ns};
}

RecordLayout make_layout(const std::vector<FieldTuple>& fields, int64_t record_bytes,
                         int64_t record_stride) {
  RecordLayout layout{.fields = {}, .record_bytes = record_bytes, .record_stride = record_stride};
  for (const auto& [name, type, output, swap_bytes, offset, shape] : fields) {
    layout.fields.push_back({.name = name,
                             .type = scalar_type_named(type),
                             .output = scalar_type_named(output),
                             .swap_bytes = swap_bytes,
                             .offset = offset,
                             .shape = shape});
  }
  return layout;
}

std::shared_ptr<RecordSource> make_source(const std::vector<ShardTuple>& shards,
                                          const std::vector<FieldTuple>& fields,
                                          int64_t record_bytes, int64_t record_stride,
                                          int64_t alignment, const std::string& direct,
                                          const std::string& engine, int64_t chunk_bytes, int depth,
                                          double read_timeout_s, bool with_record_numbers,
                                          std::optional<std::shared_ptr<FaultPlan>> faults) {
  std::vector<Shard> table;
  Objects objects;
  for (const auto& [path, header_bytes, num_records, version] : shards) {
    table.push_back({header_bytes, num_records});
    objects.paths.push_back(path.native);
    const auto [device, inode, size_bytes, modified_ns] = version;
    objects.versions.push_back({device, inode, size_bytes, modified_ns});
  }
  auto form = std::make_shared<FixedForm>(
      ShardTable(std::move(table)), make_layout(fields, record_bytes, record_stride), objects.paths,
      BatchForm::Options{.alignment = alignment, .with_record_numbers = with_record_numbers});
  const int64_t aligned = form->options().alignment;
  auto store =
      std::make_shared<FileObjects>(FileObjects::Options{.direct = parse_direct_mode(direct),
                                                         .engine = parse_engine_kind(engine),
                                                         .min_alignment = aligned > 1 ? aligned : 0,
                                                         .max_alignment = aligned,
                                                         .faults = faults.value_or(nullptr)});
  return std::make_shared<RecordSource>(
      std::move(store), std::move(objects), std::move(form),
      ReadOptions{.chunk_bytes = chunk_bytes, .depth = depth, .read_timeout_s = read_timeout_s});
}

struct NamedCounter {
  const char* name;  // "..._wait_s": nanoseconds, which Python gets as seconds
  int64_t value;
};

constexpr size_t kReaderCounters = 16;

std::array<NamedCounter, kReaderCounters> named_counters(const ReaderCounters& counters) {
  return {{{"batches", counters.batches.load()},
           {"batch_bytes", counters.batch_bytes.load()},
           {"requests", counters.reads.requests.load()},
           {"direct_bytes", counters.reads.direct_bytes.load()},
           {"cached_bytes", counters.reads.cached_bytes.load()},
           {"buffered_bytes", counters.reads.buffered_bytes.load()},
           {"retries", counters.reads.retries.load()},
           {"short_reads", counters.reads.short_reads.load()},
           {"direct_refused", counters.reads.direct_refused.load()},
           {"copied_bytes", counters.copied_bytes.load()},
           {"converted_bytes", counters.converted_bytes.load()},
           {"spilled_batches", counters.spilled_batches.load()},
           {"quarantined_buffers", counters.quarantined_buffers.load()},
           {"filled_bytes", counters.reads.filled_bytes.load()},
           {"reader_wait_s", counters.reader_wait_ns.load()},
           {"consumer_wait_s", counters.consumer_wait_ns.load()}}};
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
  static_assert(kReaderCounters <= EpochBoard::kNotes);
  static_assert(kReaderCounters <= std::tuple_size_v<decltype(counters.published)>);
  const auto now = named_counters(counters);
  for (size_t note = 0; note < now.size(); ++note) {
    const int64_t added = now[note].value - counters.published[note].exchange(now[note].value);
    if (added != 0) board.add_note(note, added);
  }
}

// By the bits of the board's marks.
constexpr std::array kMarkedKinds = {"uring", "threads", "2 MiB", "4 KiB"};

uint32_t marks_of(std::string_view engine, const BufferPool* pool) {
  const bool has_huge_pages = pool != nullptr && pool->slab()->huge_pages() > 0;
  const bool has_small_pages = pool != nullptr && pool->slab()->small_pages() > 0;
  return uint32_t{engine == "uring"} | uint32_t{engine == "threads"} << 1 |
         uint32_t{has_huge_pages} << 2 | uint32_t{has_small_pages} << 3;
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

std::shared_ptr<FaultPlan> make_faults(uint64_t seed,
                                       const std::map<int64_t, FaultTuple>& by_number,
                                       double probability, const std::vector<FaultTuple>& random,
                                       bool reorder, int64_t failing_wait,
                                       const std::map<int64_t, int>& by_call) {
  const auto fault = [](const FaultTuple& tuple) {
    return Fault{std::get<0>(tuple), std::get<1>(tuple), std::get<2>(tuple)};
  };
  FaultPlan plan{.seed = seed,
                 .fault_probability = probability,
                 .reorder = reorder,
                 .failing_wait = failing_wait,
                 .by_call = by_call};
  for (const auto& [number, tuple] : by_number) plan.by_number[number] = fault(tuple);
  for (const FaultTuple& tuple : random) plan.random_faults.push_back(fault(tuple));
  return std::make_shared<FaultPlan>(std::move(plan));
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
  py::class_<FaultPlan, std::shared_ptr<FaultPlan>>(module, "FaultPlan",
                                                    "For tests: see FaultEngine.")
      .def(py::init(&make_faults), py::kw_only(), py::arg("seed") = 0,
           py::arg("by_number") = std::map<int64_t, FaultTuple>(), py::arg("probability") = 0.0,
           py::arg("random") = std::vector<FaultTuple>(), py::arg("reorder") = false,
           py::arg("failing_wait") = -1, py::arg("by_call") = std::map<int64_t, int>())
      .def(
          "release", [](const FaultPlan& plan) { plan.hang->release(); },
          "Lets go of the system call that hangs (-2 in by_call).");

  py::class_<RecordSource, std::shared_ptr<RecordSource>>(module, "RecordSource")
      .def(py::init(&make_source), py::kw_only(), py::arg("shards"), py::arg("fields"),
           py::arg("record_bytes"), py::arg("record_stride"), py::arg("alignment"),
           py::arg("direct"), py::arg("engine"), py::arg("chunk_bytes"), py::arg("depth"),
           py::arg("read_timeout_s"), py::arg("with_record_numbers"), py::arg("faults"))
      .def(
          "batch_bytes",
          [](const RecordSource& source, int64_t count) { return source.form().most_bytes(count); },
          py::arg("count"))
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

  module.def(
      "inspect_files",
      [](const std::vector<Path>& paths) {
        std::vector<std::pair<VersionTuple, int64_t>> infos;
        const NoGil no_gil;
        for (const Path& path : paths) {
          const FileInfo info = inspect_file(path.native);
          infos.emplace_back(version_tuple(info.version), info.direct_alignment);
        }
        return infos;
      },
      py::arg("paths"),
      "For each path ((device, inode, size_bytes, modified_ns), alignment of direct reads or 0).");
  module.def(
      "refused_calls",
      [] {
        std::vector<std::pair<std::string, int>> refused;
        for (const RefusedCall& call : refused_calls()) {
          refused.emplace_back(call.name, call.error_number);
        }
        return refused;
      },
      "System calls with a substitute that fail as under a filter (seccomp), and their errno.");
  module.def(
      "direct_alignment",
      [](const Path& path, const std::string& direct) {
        const NoGil no_gil;
        const DirectFile file(path.native, parse_direct_mode(direct), 0);
        return file.can_read_direct() ? file.alignment() : 0;
      },
      py::arg("path"), py::arg("direct"),
      "Opens the file: the alignment of its direct reads, or 0 where the file system refuses "
      "them.");
}

}  // namespace s3io::bindings
