#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include "base/error.h"
#include "bindings/bindings.h"
#include "order/epoch_plan.h"
#include "order/key.h"
#include "order/permutation.h"
#include "order/record_order.h"

namespace py = pybind11;

namespace s3io::bindings {
namespace {

using Numbers = py::array_t<int64_t>;
// (offset, count, None or (size, key))
using StageTuple = std::tuple<int64_t, int64_t, std::optional<std::tuple<int64_t, uint64_t>>>;

// An order that is shared with C++: pybind11 wants it without const, but it has no other methods.
using OrderHandle = std::shared_ptr<RecordOrder>;

OrderHandle handle(const RecordOrderPtr& order) {
  return std::const_pointer_cast<RecordOrder>(order);
}

void check_range(int64_t first, int64_t count, int64_t size) {
  if (first >= 0 && count >= 0 && first <= size && count <= size - first) return;
  throw Error(ErrorKind::range,
              message(count, " positions from ", first, " do not lie in [0, ", size, ")"));
}

// An array that `write` fills, without the GIL.
template <typename Write>
Numbers numbers(int64_t count, const Write& write) {
  Numbers array(count);
  const std::span<int64_t> span(array.mutable_data(), static_cast<size_t>(count));
  const NoGil no_gil;
  write(span);
  return array;
}

void register_permutation(py::module_& module) {
  py::class_<Permutation>(module, "Permutation",
                          "A keyed permutation of [0, size), computed and not stored.")
      .def(py::init<int64_t, uint64_t>(), py::kw_only(), py::arg("size"), py::arg("key"))
      .def("__len__", &Permutation::size)
      .def(
          "at",
          [](const Permutation& permutation, int64_t position) {
            check_range(position, 1, permutation.size());
            return permutation.at(position);
          },
          py::arg("position"))
      .def(
          "position_of",
          [](const Permutation& permutation, int64_t value) {
            check_range(value, 1, permutation.size());
            return permutation.position_of(value);
          },
          py::arg("value"), "The inverse of at.")
      .def(
          "fill",
          [](const Permutation& permutation, int64_t first, int64_t count) {
            check_range(first, count, permutation.size());
            return numbers(count, [&](std::span<int64_t> out) { permutation.fill(first, out); });
          },
          py::arg("first"), py::arg("count"), "The values at `count` positions from `first`.");
}

OrderHandle mix(const std::vector<std::pair<OrderHandle, int64_t>>& parts,
                const std::vector<int64_t>& weights, uint64_t seed, int64_t epoch_positions) {
  std::vector<MixPart> made;
  for (const auto& [order, first_record] : parts) made.push_back({order, first_record});
  return handle(mix_order(std::move(made), weights, seed, epoch_positions));
}

OrderHandle select(const OrderHandle& order, const std::vector<StageTuple>& stages) {
  std::vector<ViewStage> made;
  for (const auto& [offset, count, permutation] : stages) {
    ViewStage stage{.offset = offset, .count = count, .permutation = std::nullopt};
    if (permutation) {
      stage.permutation = {.size = std::get<0>(*permutation), .key = std::get<1>(*permutation)};
    }
    made.push_back(stage);
  }
  return handle(select_order(order, made));
}

void register_record_order(py::module_& module) {
  py::class_<RecordOrder, OrderHandle>(module, "RecordOrder",
                                       "Which record comes when: see csrc/order/record_order.h.")
      .def_static(
          "sequential", [](int64_t num_records) { return handle(sequential_order(num_records)); },
          py::arg("num_records"))
      .def_static(
          "shuffled",
          [](int64_t num_records, uint64_t seed) {
            return handle(shuffled_order(num_records, seed));
          },
          py::arg("num_records"), py::arg("seed"))
      .def_static(
          "block",
          [](int64_t num_records, int64_t block_records, uint64_t seed) {
            return handle(block_order(num_records, block_records, seed));
          },
          py::arg("num_records"), py::arg("block_records"), py::arg("seed"))
      .def(
          "windowed",
          [](const OrderHandle& order, int64_t window_positions, uint64_t seed) {
            return handle(window_order(order, window_positions, seed));
          },
          py::arg("window_positions"), py::arg("seed"),
          "Mixed within windows of so many positions.")
      .def(
          "numbered_by_epoch",
          [](const OrderHandle& order, int64_t most) {
            return handle(numbered_by_epoch(order, most));
          },
          py::arg("num_numbers"), "Record r of epoch e is number e * num_records + r.")
      .def_static("mix", &mix, py::arg("parts"), py::arg("weights"), py::arg("seed"),
                  py::arg("epoch_positions"),
                  "`parts`: (order, first_record). `weights`: whole numbers, in proportion.")
      .def("select", &select, py::arg("stages"),
           "`stages`: (offset, count, None or (size, key) of a permutation), innermost view first.")
      .def_property_readonly("num_positions", &RecordOrder::num_positions)
      .def_property_readonly("num_records", &RecordOrder::num_records)
      .def(
          "records",
          [](const RecordOrder& order, int64_t epoch, int64_t first, int64_t count) {
            check_range(first, count, order.num_positions());
            const auto epoch_order = order.epoch(epoch);
            return numbers(count,
                           [&](std::span<int64_t> out) { epoch_order->records(first, out); });
          },
          py::arg("epoch"), py::arg("first"), py::arg("count"),
          "The records at `count` positions of an epoch from `first`.");
}

Numbers plan_records(const EpochPlan& plan, int64_t group) {
  std::vector<int64_t> records;
  {
    const NoGil no_gil;
    plan.records(group, records);
  }
  return Numbers(static_cast<py::ssize_t>(records.size()), records.data());
}

void register_epoch_plan(py::module_& module) {
  py::class_<EpochPlan>(module, "EpochPlan",
                        "Which records make up which batch: see csrc/order/epoch_plan.h.")
      .def(py::init([](const OrderHandle& order, int64_t epoch, int64_t batch_size, bool drop_last,
                       bool pad_last, int64_t rank, int64_t world_size, int64_t worker,
                       int64_t num_workers, int64_t group_size, int64_t start) {
             return EpochPlan(order, epoch,
                              {.batch_size = batch_size,
                               .drop_last = drop_last,
                               .pad_last = pad_last,
                               .rank = rank,
                               .world_size = world_size,
                               .worker = worker,
                               .num_workers = num_workers,
                               .group_size = group_size,
                               .start = start});
           }),
           py::kw_only(), py::arg("order"), py::arg("epoch"), py::arg("batch_size"),
           py::arg("drop_last") = false, py::arg("pad_last") = false, py::arg("rank") = 0,
           py::arg("world_size") = 1, py::arg("worker") = 0, py::arg("num_workers") = 1,
           py::arg("group_size") = 1, py::arg("start") = 0)
      .def_property_readonly("num_steps", &EpochPlan::num_steps)
      .def_property_readonly("num_local_batches", &EpochPlan::num_local_batches)
      .def_property_readonly("num_groups", &EpochPlan::num_groups)
      .def_property_readonly("max_group_records", &EpochPlan::max_group_records)
      .def_property_readonly("dropped_records", &EpochPlan::dropped_records)
      .def_property_readonly("padded_records", &EpochPlan::padded_records)
      .def(
          "step_of",
          [](const EpochPlan& plan, int64_t batch) {
            check_range(batch, 1, plan.num_local_batches());
            return plan.step_of(batch);
          },
          py::arg("batch"))
      .def("consumed_after", &EpochPlan::consumed_after, py::arg("steps"))
      .def("records", &plan_records, py::arg("group"));
}

}  // namespace

void register_order(py::module_& module) {
  module.attr("PURPOSE_SPLIT") = static_cast<uint64_t>(KeyPurpose::split);
  module.attr("PURPOSE_AUGMENTATION") = static_cast<uint64_t>(KeyPurpose::augmentation);
  module.def(
      "derive_key",
      [](uint64_t seed, const std::vector<uint64_t>& path) { return derive_key(seed, path); },
      py::arg("seed"), py::arg("path"),
      "64 bits for each path of numbers under a seed; a path begins with its purpose.");
  register_permutation(module);
  register_record_order(module);
  register_epoch_plan(module);
}

}  // namespace s3io::bindings
