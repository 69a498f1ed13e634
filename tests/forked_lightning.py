"""A program whose second rank, which Lightning starts, is forked: this process has imported what it
imports."""

from __future__ import annotations

import runpy
import sys
from types import SimpleNamespace

from forked_torchrun import RANK
from lightning.pytorch.strategies.launchers import subprocess_script
from warm_python import Program, WarmPython


def main(command: list[str]) -> None:
    """``python FILE ARGUMENTS``."""
    warm = WarmPython.forked()

    def start(command: list[str], env: dict[str, str], cwd: None) -> Program:
        return warm.start(RANK, command[1:], env, 1, 2)

    subprocess_script.subprocess = SimpleNamespace(Popen=start)
    sys.argv = command
    runpy.run_path(command[0], run_name="__main__")
