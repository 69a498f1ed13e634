"""Names that may not be there, and frames: who calls, and in which function of whose.

Frames are compared by their code alone. Asking a frame for its variables would keep them alive, and
so the batches among them; so only a frame that was recognised is asked.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any


def find_name(module: str, name: str) -> Any:
    """What the module calls so; None where it has no such name, or where nobody has imported it."""
    return getattr(sys.modules.get(module), name, None)


def codes_of(module: str, *classes: str) -> set[CodeType]:
    """Of the methods of these classes, as far as they are there."""
    kinds = [kind for name in classes if (kind := find_name(module, name)) is not None]
    functions = [function for kind in kinds for function in vars(kind).values()]
    return {function.__code__ for function in functions if hasattr(function, "__code__")}


def code_of(function: Any) -> CodeType | None:
    return getattr(function, "__code__", None)


def code_called_by(called: Any) -> CodeType | None:
    """Of what runs when it is called."""
    while isinstance(called, functools.partial):
        called = called.func
    return code_of(called if hasattr(called, "__code__") else type(called).__call__)


def callers(frame: FrameType | None) -> Iterator[FrameType]:
    """The frame, and all that wait for it."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def find_caller_in(frame: FrameType | None, code: CodeType) -> FrameType | None:
    return next((caller for caller in callers(frame) if caller.f_code is code), None)
