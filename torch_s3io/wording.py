"""Numbers as people say them, and foreign values in few characters."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any

_LARGE = 1 << 128


def count_of(number: int, what: str) -> str:
    """``1 shard``, ``2 shards``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def size_text(number: float) -> str:
    """Bytes in a decimal unit: the largest of which there is one at least, up to TB."""
    if round(number) < 1000:
        return count_of(round(number), "byte")
    for unit in ("kB", "MB", "GB"):
        number /= 1000
        if round(number, 2) < 1000:
            return f"{number:.2f} {unit}"
    return f"{number / 1000:.2f} TB"


def listed(texts: Sequence[str], separator: str = ", ", most: int = 12) -> str:
    """The first ones, and how many more there are."""
    more = len(texts) - most
    return separator.join([*texts[:most], *([f"{more} more"] if more > 0 else [])])


def is_text(value: Any) -> bool:
    """Whether it is a text that can be written as UTF-8: halves of surrogate pairs cannot."""
    try:
        str.encode(value)
    except (TypeError, UnicodeEncodeError):
        return False
    return True


def one_line(text: str, most: int = 200) -> str:
    """A foreign text within a sentence: printable, in at most so many characters."""
    shown = text if text.isprintable() else repr(text[:most])[1:-1]
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."


def short(value: Any, most: int = 100) -> str:
    """Any value as ``repr`` shows it, but of a bounded length and whatever it is: integers of
    thousands of digits have no ``repr``, and lists that hold one another many times a long one."""
    try:
        text = _Short(most).repr(value)
    except Exception:
        text = f"a {type(value).__name__}"
    return text if len(text) <= most else f"{text[: most - 3]}..."


class _Short(reprlib.Repr):
    def __init__(self, most: int) -> None:
        super().__init__()
        self.maxstring = self.maxother = most
        self.maxlevel = 4

    def repr1(self, x: Any, level: int) -> str:
        if isinstance(x, int) and not -_LARGE < x < _LARGE:
            return "an integer of more than 128 bits"
        if isinstance(x, (str, bytes, bytearray)):
            return repr(x[: self.maxstring])
        return super().repr1(x, level)
