#include <fcntl.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <utility>

#include "bindings/bindings.h"
#include "http/shared_credentials.h"
#include "memory/text_board.h"

namespace py = pybind11;

namespace s3io::bindings {
namespace {

// Python handles signals in its main thread alone; threads of ours never need the GIL.
void check_signals_in_main_thread() {
  if (::gettid() == ::getpid()) check_signals();
}

}  // namespace

void register_s3_credentials(py::module_& module) {
  py::class_<TextBoard, std::shared_ptr<TextBoard>>(
      module, "CredentialBoard", "Where a process says credentials to its workers.")
      .def(py::init<>())
      .def_static(
          "adopt",
          [](int fd, int bell_fd) {
            UniqueFd page(fd), bell(bell_fd);
            for (const int one : {fd, bell_fd}) ::fcntl(one, F_SETFD, FD_CLOEXEC);
            return std::make_shared<TextBoard>(std::move(page), std::move(bell));
          },
          py::kw_only(), py::arg("fd"), py::arg("bell_fd"),
          "The board of another process; takes the descriptors over.")
      .def_property_readonly("fd", &TextBoard::fd)
      .def_property_readonly("bell_fd", &TextBoard::bell_fd,
                             "An eventfd, readable once somebody wants newer ones.")
      .def(
          "say",
          [](TextBoard& board, std::string access_key, std::string secret_key,
             std::string session_token, double expires_s, bool is_renewed, std::string problem) {
            say_credentials(
                board, {{std::move(access_key), std::move(secret_key), std::move(session_token)},
                        expires_s,
                        is_renewed,
                        std::move(problem)});
          },
          py::kw_only(), py::arg("access_key"), py::arg("secret_key"), py::arg("session_token"),
          py::arg("expires_s"), py::arg("is_renewed"), py::arg("problem"),
          "expires_s: since 1970; 0: nobody knows. problem: why there are no newer ones.")
      .def(
          "source",
          [](std::shared_ptr<TextBoard> board) {
            return credentials_on(std::move(board), kRenewalPatience, check_signals_in_main_thread);
          },
          "What is on the board, whenever it is asked for; of this process.");
}

}  // namespace s3io::bindings
