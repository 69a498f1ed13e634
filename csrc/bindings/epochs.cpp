#include <fcntl.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <tuple>
#include <utility>

#include "bindings/bindings.h"
#include "memory/epoch_board.h"

namespace py = pybind11;

namespace s3io::bindings {

void register_epochs(py::module_& module) {
  py::class_<EpochBoard, std::shared_ptr<EpochBoard>>(module, "EpochBoard",
                                                      "See csrc/memory/epoch_board.h.")
      .def(py::init<>())
      .def_static(
          "adopt",
          [](int fd) {
            ::fcntl(fd, F_SETFD, FD_CLOEXEC);
            return std::make_shared<EpochBoard>(UniqueFd(fd));
          },
          py::kw_only(), py::arg("fd"), "The board of another process; takes the descriptor over.")
      .def_property_readonly("fd", &EpochBoard::fd)
      .def("set", &EpochBoard::set, py::kw_only(), py::arg("epoch"), py::arg("start"))
      .def_property_readonly("pick_ups", &EpochBoard::pick_ups,
                             "How many workers have begun here since the last change.")
      .def(
          "read",
          [](const EpochBoard& board) {
            const EpochBoard::Position position = board.read();
            return std::tuple(position.epoch, position.start);
          },
          "(epoch, start), without beginning there")
      .def(
          "pick_up",
          [](EpochBoard& board, int64_t worker) {
            const EpochBoard::PickUp found = board.pick_up(worker);
            return std::tuple(found.position.epoch, found.position.start, found.repeated);
          },
          py::arg("worker"),
          "(epoch, start, whether a worker of this number has begun here since the last change)")
      .def("warn_once", &EpochBoard::warn_once,
           "True for the first caller in all processes: who warns.")
      .def("worker_stats", &worker_stats, "What the readers of all workers counted.")
      .def("worker_kinds", &worker_kinds, "The engines and page sizes that workers use.");
}

}  // namespace s3io::bindings
