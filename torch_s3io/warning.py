"""Warnings that name the user's line."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

# What calls us, or calls what calls us, in the user's place.
_NOT_THE_USERS = ("torch_s3io", "torch", "torchdata", "multiprocessing", "threading", "contextlib")


def warn(text: str, kind: type[Warning] = RuntimeWarning) -> None:
    """A warning at the line of the program that led to it, however deep it comes from.

    So Python's own filters show it once for each such line.
    """
    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and _package_of(frame) in _NOT_THE_USERS:
        level, frame = level + 1, frame.f_back
    warnings.warn(text, kind, stacklevel=level)


def _package_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
