"""What cli and bench share: optional packages, progress on a terminal."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from .errors import Error

Item = TypeVar("Item")


class CommandError(Error):
    """A command cannot do what it was asked for. The text says what to do."""


def optional_package(module: str, package: str, extra: str, purpose: str) -> Any:
    """The module, or CommandError with the command that installs it.

    Args:
        module: Its name in Python, as in ``yaml``.
        package: Its name for pip, as in ``PyYAML``.
        extra: The group of optional dependencies of torch-s3io that brings it.
        purpose: What it is for, as in ``reading configurations``.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise CommandError(
            f"{purpose} needs {package} ({error}): pip install {package}, "
            f"or all of pip install 'torch-s3io[{extra}]'"
        ) from None


def progress(items: Iterable[Item], total: int, text: str, unit: str = "it") -> Iterator[Item]:
    """The items, with a progress bar where stderr is a terminal and tqdm is installed."""
    if not sys.stderr.isatty():
        return iter(items)
    bar = progress_bar()
    if bar is None:
        print(f"{text} ...", file=sys.stderr, flush=True)
        return iter(items)
    return iter(bar(items, total=total, desc=text, unit=unit, leave=False, miniters=1))


def progress_bar() -> Any:
    """The class tqdm, or None where it is not installed. Its bars start no thread, since commands
    fork; so they need ``miniters=1`` to keep up when progress becomes slow."""
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return type("Bar", (tqdm,), {"monitor_interval": 0})


def show_progress(text: str) -> None:
    """Replaces the line of progress on a terminal; an empty text removes it."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
