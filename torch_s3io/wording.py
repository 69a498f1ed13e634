"""Numbers, names, suggestions and foreign values as people read them."""

from __future__ import annotations

import difflib
import reprlib
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

_LARGE = 1 << 128
# What moves the cursor or ends a line, and what is no character: half of a surrogate pair.
_NOT_SHOWN = {"Cc", "Cs", "Zl", "Zp"}


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


def did_you_mean(wrong: str, names: Iterable[str]) -> str:
    """``did you mean NAME?``, or all of the names where none is near."""
    known = list(names)
    near = difflib.get_close_matches(wrong, known, n=1)
    return f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"


def is_text(value: Any) -> bool:
    """Whether it is a text that can be written as UTF-8: halves of surrogate pairs cannot."""
    try:
        str.encode(value)
    except (TypeError, UnicodeEncodeError):
        return False
    return True


def printable(text: str) -> str:
    """The text as a line: file names may hold line ends, control characters, and bytes that are no
    text. These become escapes such as ``\\n``, ``\\x1b`` and ``\\xff``."""
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    if unicodedata.category(character) not in _NOT_SHOWN:
        return character
    if "\udc80" <= character <= "\udcff":  # a byte, as os.fsdecode has it
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def one_line(text: str, most: int = 200) -> str:
    """A foreign text within a sentence: printable, in at most so many characters."""
    shown = printable(text[:most])
    is_whole = len(text) <= most and len(shown) <= most
    return shown if is_whole else f"{shown[: most - 3]}..."


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
