#include <fcntl.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>

#include "bindings/bindings.h"
#include "memory/epoch_board.h"

namespace py = pybind11;

namespace s3io::bindings {
namespace {

// (epoch, start, change, repeats)
using PositionTuple = std::tuple<int64_t, int64_t, uint64_t, bool>;

PositionTuple tuple_of(const EpochBoard::Position& position) {
  return {position.epoch, position.start, position.change, position.repeats};
}

EpochBoard::Position position_of(const PositionTuple& tuple) {
  const auto [epoch, start, change, repeats] = tuple;
  return {epoch, start, change, repeats};
}

std::optional<PositionTuple> join(EpochBoard& board, size_t place, uint32_t team, uint32_t number,
                                  const PositionTuple& offered) {
  const auto [epoch, start, change, repeats] = offered;
  const auto position =
      board.join({.place = place, .team = team, .number = number}, {epoch, start, change, repeats});
  if (!position) return std::nullopt;
  return tuple_of(*position);
}

}  // namespace

void register_epochs(py::module_& module) {
  py::class_<EpochBoard, std::shared_ptr<EpochBoard>> board(module, "EpochBoard",
                                                            "See csrc/memory/epoch_board.h.");
  board.attr("TEAMS") = EpochBoard::kTeams;
  board.def(py::init<>())
      .def_static(
          "adopt",
          [](int fd) {
            ::fcntl(fd, F_SETFD, FD_CLOEXEC);
            return std::make_shared<EpochBoard>(UniqueFd(fd));
          },
          py::kw_only(), py::arg("fd"), "The board of another process; takes the descriptor over.")
      .def_property_readonly("fd", &EpochBoard::fd)
      .def(
          "set",
          [](EpochBoard& one, const PositionTuple& position) { one.set(position_of(position)); },
          py::arg("position"), "(epoch, start, change, repeats) of the data set.")
      .def(
          "read", [](const EpochBoard& one) { return tuple_of(one.read()); }, "What was set.")
      .def("clear", &EpochBoard::clear, py::arg("place"), "For another team.")
      .def("join", &join, py::kw_only(), py::arg("place"), py::arg("team"), py::arg("number"),
           py::arg("offered"),
           "(epoch, start, change, repeats) of a team's pass; None where it is not known any more.")
      .def("mark_begun", &EpochBoard::mark_begun, py::arg("change"))
      .def("mark_read", &EpochBoard::mark_read, py::arg("change"))
      .def_property_readonly("has_begun", &EpochBoard::has_begun,
                             "Whether workers have begun at the position that was set last.")
      .def("was_read", &EpochBoard::was_read, py::arg("change"),
           "Whether workers have read more than a look there.")
      .def("note_restored", &EpochBoard::note_restored, py::kw_only(), py::arg("place"),
           py::arg("epoch"), py::arg("has_left"), py::arg("sharing"))
      .def("restored_epoch", &EpochBoard::restored_epoch, py::arg("place"),
           "That a team goes on with, as the states of its workers say; 0 without any.")
      .def("warn_once", &EpochBoard::warn_once, py::arg("topic"),
           "True for the first caller in all processes: who warns.")
      .def("worker_stats", &worker_stats, "What the readers of all workers counted.")
      .def("worker_kinds", &worker_kinds, "The engines and page sizes that workers use.");
}

}  // namespace s3io::bindings
