"""A target's loop, in a process of its own: inputs, one after the other, until the time is up."""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import importlib.util
import json
import mmap
import os
import sys
import tempfile
import time
import traceback
import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from .coverage import Coverage
from .limits import Limits
from .mutation import MOST_BYTES, Mutator

_LONGEST_MESSAGE = 4096
_MOST_KEPT_BYTES = 1 << 13


class Current:
    """The input that is being read, in memory that outlives the process: it may end anywhere."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 16 + MOST_BYTES)

    def begin(self, data: bytes) -> None:
        self._memory[8 : 16 + len(data)] = len(data).to_bytes(8, "little") + data
        self._memory[:8] = (self.count + 1).to_bytes(8, "little")

    @property
    def count(self) -> int:
        return int.from_bytes(self._memory[:8], "little")

    @property
    def data(self) -> bytes:
        return self._memory[16 : 16 + int.from_bytes(self._memory[8:16], "little")]


def load_target(path: Path) -> ModuleType:
    """A module with ``make(folder)``, which gives what reads an input; and, if it wants, with
    ``TOKENS`` and ``ALLOWS`` (see Limits)."""
    spec = importlib.util.spec_from_file_location(f"fuzz_target_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_corpus(*folders: Path) -> list[bytes]:
    files = [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]
    return [path.read_bytes()[:MOST_BYTES] for path in files]


class Loop:
    """Reads inputs with one target and keeps those that reach new lines.

    Args:
        target: What ``load_target`` gives.
        package: The folder whose lines count.
        expected: The type of errors that are right; their text is looked at as well.
    """

    def __init__(
        self, target: ModuleType, package: Path, expected: type[Exception], current: Current
    ) -> None:
        self._expected = expected
        self._current = current
        self._coverage = Coverage(str(package))
        self._scratch = tempfile.TemporaryDirectory(prefix="fuzz-", dir=_memory_folder())
        self._limits = Limits(frozenset(getattr(target, "ALLOWS", ())))
        self._read: Callable[[bytes], None] = target.make(Path(self._scratch.name))

    def read(self, data: bytes, is_traced: bool) -> bool:
        """Whether it reached new lines, if it is traced, which is several times slower. Raises
        whatever is wrong with it."""
        known = len(self._coverage.lines)
        self._current.begin(data)
        with self._limits:
            try:
                with self._coverage if is_traced else contextlib.nullcontext():
                    self._read(data)
            except self._expected as error:
                _check_message(str(error))
        return len(self._coverage.lines) > known

    def run(self, inputs: list[bytes], new: Path, seed: int, tokens: Any, seconds: float) -> None:
        """Mutates for so long; with 0 seconds reads the inputs alone."""
        deadline = time.monotonic() + seconds
        for data in inputs:
            self.read(data, is_traced=True)
        self._limits.check_descriptors()
        mutator = Mutator(seed, tokens)
        corpus = inputs or [b""]
        while time.monotonic() < deadline:
            for number in range(64):
                data = mutator.mutated(corpus)
                if self.read(data, is_traced=number % 8 == 0) and len(data) <= _MOST_KEPT_BYTES:
                    corpus.append(data)
                    (new / hashlib.sha1(data).hexdigest()).write_bytes(data)
            self._limits.check_descriptors()

    @property
    def lines(self) -> int:
        return len(self._coverage.lines)

    def close(self) -> None:
        self._scratch.cleanup()


def _check_message(text: str) -> None:
    """A person reads it, on a terminal or in a log."""
    assert len(text) <= _LONGEST_MESSAGE, f"a message of {len(text)} characters: {text[:200]}"
    controls = {one for one in text if unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp")}
    assert controls <= {"\n"}, f"a message that cannot be printed: {text!r:.300}"


def _memory_folder() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def run_in_fork(
    path: Path, package: Path, expected: type[Exception], options: dict[str, Any], current: Current
) -> int:
    """Forks; the child writes what it did to ``options["report"]``. Returns its process number."""
    pid = os.fork()
    if pid:
        return pid
    status = 2
    faulthandler.enable()
    try:
        target = load_target(path)
        loop = Loop(target, package, expected, current)
        try:
            loop.run(
                options["inputs"],
                options["new"],
                options["seed"],
                getattr(target, "TOKENS", ()),
                options["seconds"],
            )
            status = 0
        finally:
            report = {"executions": current.count, "coverage": loop.lines}
            Path(options["report"]).write_text(json.dumps(report))
            loop.close()
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
