"""What commands print. It comes through on any terminal, pipe and locale, or the command ends well.

All output goes through this module. A name of a file may hold any bytes: what is no text, or would
end a line, is shown as an escape (``printable``); so is what the terminal's encoding lacks.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import shutil
import signal
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, TypeVar

from .errors import Error
from .wording import printable

Item = TypeVar("Item")

_CLEAR_LINE = "\r\x1b[K"
_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


class CommandError(Error):
    """A command cannot do what it was asked for. The text says what to do."""


def open_standard_streams() -> None:
    """Where stdin, stdout or stderr is closed, it leads to /dev/null from now on. Else the next
    file that is opened gets its number, and with it what a library prints."""
    for name, mode in _STREAMS:
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode)  # noqa: SIM115  (for as long as the program runs)
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


def say(*lines: str) -> None:
    """Prints lines on stdout."""
    say_text("".join(f"{printable(line)}\n" for line in lines))


def say_text(text: str) -> None:
    """Prints a text that has its line ends.

    Raises:
        SystemExit: Whoever read our output has seen enough, as ``head`` does: with the status that
            a shell gives to a program that SIGPIPE ended.
        CommandError: stdout cannot be written to.
    """
    try:
        _write(sys.stdout, text)
    except BrokenPipeError:
        raise SystemExit(128 + signal.SIGPIPE) from None
    except OSError as error:
        raise CommandError(f"stdout: cannot write the output: {error.strerror}") from None


def note(text: str) -> None:
    """Prints a line on stderr. Where that cannot be written to, nobody reads it."""
    note_text(f"{printable(text)}\n")


def note_text(text: str) -> None:
    """The same for a text that has its line ends."""
    with contextlib.suppress(OSError):
        _write(sys.stderr, text)


def _write(stream: TextIO, text: str) -> None:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except OSError:
        _lead_nowhere(stream)  # Python writes what is left of it when the program ends
        raise


def _lead_nowhere(stream: TextIO) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


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


# Progress, on stderr ------------------------------------------------------------------------------


def on_terminal() -> bool:
    """Whether somebody looks at stderr: then a line of progress is replaced by the next one."""
    return sys.stderr.isatty()


def show_step(text: str) -> None:
    """Says what is being done: in the line of progress on a terminal, else in a line of its own, so
    that a log shows it. An empty text removes the line of progress."""
    if on_terminal():
        show_progress(text)
    elif text:
        note(text)


def show_progress(text: str) -> None:
    """Replaces the line of progress on a terminal; an empty text removes it."""
    if on_terminal():
        note_text(f"{_CLEAR_LINE}{_fitted(printable(text))}")


def _fitted(text: str) -> str:
    """What of it fits into a line of the terminal: of a longer one the first part would stay."""
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        columns = shutil.get_terminal_size().columns
    room = max(columns or 80, 1) - 1
    for index, character in enumerate(text):
        room -= 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if room < 0:
            return text[:index]
    return text


def progress(items: Iterable[Item], total: int, text: str, unit: str = "it") -> Iterator[Item]:
    """The items, with a progress bar where stderr is a terminal and tqdm is installed; a line on a
    terminal without it."""
    bar = progress_bar()
    if bar is None:
        if on_terminal():
            note(f"{text} ...")
        return iter(items)
    return iter(bar(items, total=total, desc=printable(text), unit=unit))


def progress_bar() -> Any:
    """The class tqdm for a bar that vanishes at its end; None where stderr is no terminal, or tqdm
    is not installed. Its bars start no thread, since commands fork; so they need ``miniters=1`` to
    keep up when progress becomes slow."""
    if not on_terminal():
        return None
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    bar = type("Bar", (tqdm,), {"monitor_interval": 0})
    return functools.partial(bar, leave=False, miniters=1)
