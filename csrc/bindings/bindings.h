// What the binding files share. Each registers the classes of one layer.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/typing.h>

#include <functional>
#include <string>
#include <vector>

#include "memory/epoch_board.h"

namespace s3io::bindings {

// dict[str, Any]
using StatsDict = pybind11::typing::Dict<pybind11::str, pybind11::object>;

void register_errors(pybind11::module_& module);
void register_memory(pybind11::module_& module);
void register_store(pybind11::module_& module);
void register_files(pybind11::module_& module);
// Object storage, or only the note that it was left out.
void register_s3(pybind11::module_& module);
// Of it, with object storage alone.
void register_s3_reads(pybind11::module_& module);
void register_s3_writer(pybind11::module_& module);
void register_s3_credentials(pybind11::module_& module);
void register_objects(pybind11::module_& module);
void register_forms(pybind11::module_& module);
void register_order(pybind11::module_& module);
void register_reader(pybind11::module_& module);
void register_handover(pybind11::module_& module);
void register_epochs(pybind11::module_& module);
void register_folders(pybind11::module_& module);
void register_arrays(pybind11::module_& module);
void register_tars(pybind11::module_& module);
void register_tokens(pybind11::module_& module);
void register_benchmark(pybind11::module_& module);

// A RuntimeWarning at the user's line. Throws what Python makes of it where warnings are errors.
void warn(const std::string& text);

// What the readers of all workers counted, by the names of RecordSource.stats.
StatsDict worker_stats(const EpochBoard& board);
// The engines and page sizes that workers use, by their names in stats.
std::vector<std::string> worker_kinds(const EpochBoard& board);

// Releases the GIL for its scope.
//
// Note: at interpreter exit a thread that asks for the GIL back is ended by unwinding its stack,
// which no C++ destructor survives: the process would abort. Such a thread sleeps here until the
// process is gone instead. (pybind11's own guard aborts.)
class NoGil {
 public:
  NoGil() : state_(PyEval_SaveThread()) {}
  ~NoGil();
  NoGil(const NoGil&) = delete;
  NoGil& operator=(const NoGil&) = delete;

 private:
  PyThreadState* state_;
};

// Calls back into Python from a call that waits without the GIL. Throws what it raises.
void with_gil(const std::function<void()>& call);

// For calls that wait without the GIL: lets Python handle a signal, and throws what its handler
// raised, so that Ctrl-C works.
void check_signals();

}  // namespace s3io::bindings
