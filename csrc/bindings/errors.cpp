#include <cxxabi.h>
#include <unistd.h>

#include <exception>

#include "base/error.h"
#include "base/printable.h"
#include "bindings/bindings.h"

namespace py = pybind11;

namespace s3io::bindings {
namespace {

// The class in torch_s3io/errors.py for each kind.
const char* class_name(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::config:
      return "ConfigError";
    case ErrorKind::data:
      return "DataError";
    case ErrorKind::not_found:
      return "NotFoundError";
    case ErrorKind::access:
      return "AccessError";
    case ErrorKind::read:
      return "ReadError";
    case ErrorKind::write:
      return "WriteError";
    case ErrorKind::no_space:
      return "NoSpaceError";
    case ErrorKind::exists:
      return "ExistsError";
    case ErrorKind::file_changed:
      return "FileChangedError";
    case ErrorKind::object_changed:
      return "ObjectChangedError";
    case ErrorKind::direct_io:
      return "DirectIOError";
    case ErrorKind::engine:
      return "EngineError";
    case ErrorKind::pool_timeout:
      return "PoolTimeoutError";
    case ErrorKind::read_timeout:
      return "ReadTimeoutError";
    case ErrorKind::write_timeout:
      return "WriteTimeoutError";
    case ErrorKind::range:
      return "RangeError";
    case ErrorKind::out_of_memory:
      return "OutOfMemoryError";
  }
  return "Error";
}

[[noreturn]] void sleep_for_ever() {
  while (true) ::pause();
}

// Paths may hold bytes that are no text.
py::object as_text(const char* bytes) {
  return py::reinterpret_steal<py::object>(PyUnicode_DecodeFSDefault(bytes));
}

void translate(std::exception_ptr pointer) {
  try {
    if (pointer) std::rethrow_exception(pointer);
  } catch (const Error& error) {
    const py::object type = py::module_::import("torch_s3io.errors").attr(class_name(error.kind()));
    const py::object raised = type(as_text(error.what()));
    if (error.is_undone()) raised.attr("is_undone") = true;
    PyErr_SetObject(type.ptr(), raised.ptr());
  }
}

}  // namespace

void register_errors(py::module_& /*module*/) {
  py::register_local_exception_translator(&translate);
}

void warn(const std::string& text) {
  py::module_::import("torch_s3io.warning").attr("warn")(as_text(on_one_line(text).c_str()));
}

NoGil::~NoGil() {
  try {
    PyEval_RestoreThread(state_);
  } catch (const abi::__forced_unwind&) {
    sleep_for_ever();
  }
}

void with_gil(const std::function<void()>& call) {
  try {
    const py::gil_scoped_acquire gil;
    call();
  } catch (const abi::__forced_unwind&) {
    sleep_for_ever();
  }
}

void check_signals() {
  with_gil([] {
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
  });
}

}  // namespace s3io::bindings
