"""Which lines of the package an input reaches."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

Line = tuple[str, int]


class Coverage:
    """The lines of functions whose file lies below ``folder``, in this thread."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.lines: set[Line] = set()

    def __enter__(self) -> Coverage:
        sys.settrace(self._on_call)
        return self

    def __exit__(self, *_: Any) -> None:
        sys.settrace(None)

    def _on_call(self, frame: FrameType, event: str, _: Any) -> Any:
        return self._on_line if frame.f_code.co_filename.startswith(self._folder) else None

    def _on_line(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            self.lines.add((frame.f_code.co_filename, frame.f_lineno))
        return self._on_line
