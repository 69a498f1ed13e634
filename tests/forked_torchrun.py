"""torchrun, but its ranks are forked from here: this process has imported what they import."""

from __future__ import annotations

import subprocess
from typing import Any

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler import (
    SubprocessHandler,
)
from warm_python import Program, WarmPython

# Without the interpreter's end: there a thread of gloo may drop the tensors of the last collective,
# whatever the data set, and the process then hangs or aborts. See docs/frameworks.md.
RANK = """
    import os, runpy, sys, traceback
    os.setsid()
    del sys.argv[0]
    sys.path[0] = os.path.dirname(sys.argv[0])
    status = 0
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    os._exit(status)
"""


class Rank:
    """Of ``subprocess.Popen``, what torchrun uses."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self.pid = program.pid

    def poll(self) -> int | None:
        return self._program.poll()

    def wait(self, timeout_s: float) -> int:
        status = self._program.poll(timeout_s)
        if status is None:
            raise subprocess.TimeoutExpired("rank", timeout_s)
        return status


def main(arguments: list[str]) -> None:
    warm = WarmPython.forked()

    def start(handler: SubprocessHandler, command: tuple[str, ...], env: dict[str, str]) -> Any:
        _python, _unbuffered, *file_and_arguments = command
        return Rank(warm.start(RANK, file_and_arguments, env, 1, 2))

    SubprocessHandler._popen = start
    run.main(arguments)
