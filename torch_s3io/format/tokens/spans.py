"""Lists of documents beside raw tokens, as OLMo and Dolma have them: ``NAME.csv.gz``.

Each line begins with the first token of a document and the one after its last. What follows is not
looked at; within quotes it may have newlines.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...index.place import Where
from ...store.stores import store_of
from ...warning import warn
from ...wording import printable, short
from ..objects import Column
from .document_index import Sought, find_documents
from .document_table import DocumentTable, TokenFile, bytes_beside, fail

_READ_BYTES = 1 << 20  # of the text
_MOST_LINE_BYTES = 1 << 16
_MOST_DIGITS = 18  # of a number: it fits into 64 bits
# Lines that a compressed byte may have: those of documents take 2 bytes and more each.
_MOST_LINES_PER_BYTE = 2
_NEWLINE, _RETURN, _QUOTE, _COMMA = b'\n\r",'


def spans_path(path: str) -> str | None:
    """``NAME.csv.gz`` of ``NAME.npy``, if it is there; or ``NAME.npy.csv.gz``."""
    stem = path.rsplit(".", 1)[0] if "." in path.rsplit("/", 1)[-1] else path
    names = (f"{stem}.csv.gz", f"{path}.csv.gz")
    return next((name for name in names if store_of(name).has(name)), None)


def find_listed(files: Sequence[Sought], where: Where) -> list[TokenFile]:
    """The documents that the lists beside files name.

    Raises:
        DataError: A list is damaged, or of another file.
        FileChangedError: One is not as it was.
        ConfigError, AccessError, ReadTimeoutError: As for ``indexed``.
    """
    found, _ = find_documents(files, {"lists": True}, _read_list, where)
    for one, made in zip(files, found, strict=True):
        if made.num_tokens < one.num_tokens:
            warn(
                f"{printable(one.file.path)}: has {one.num_tokens} tokens, of which "
                f"{printable(one.source)} lists {made.num_tokens}: the others are not read. It may "
                "be of another file"
            )
    return found


def _read_list(one: Sought, on_bytes: Callable[[int], object]) -> tuple[DocumentTable, int]:
    data = bytes_beside(one.source, one.version)
    most_lines = _MOST_LINES_PER_BYTE * len(data) + 1000
    number, last, parts = 0, 0, [np.empty((0, 2), np.int64)]
    try:
        for lines in _whole_lines(one.source, data.data, on_bytes):
            spans = _spans(one.source, number, lines)
            _check(one, number, last, spans)
            parts.append(spans)
            number, last = number + len(spans), int(spans[-1, 1])
            if number > most_lines:
                fail(
                    one.source,
                    f"has more than {most_lines} lines in {len(data)} bytes, as no list of "
                    "documents has: it is damaged, or made to fill the memory",
                )
    except (OSError, EOFError, zlib.error) as error:
        fail(one.source, f"cannot be decompressed: {error}; copy it again")
    begins, ends = np.concatenate(parts).T
    starts = begins.astype(np.uint64) * np.uint64(one.dtype.itemsize) + np.uint64(one.header_bytes)
    lengths = (ends - begins).astype(np.uint64)
    return DocumentTable(starts, lengths), number


class _Lines(NamedTuple):
    """Whole lines of text, and where the newlines are that end them."""

    text: bytes
    ends: np.ndarray[Any, np.dtype[np.int64]]


def _whole_lines(
    path: str, data: memoryview, on_bytes: Callable[[int], object]
) -> Iterator[_Lines]:
    compressed, rest = io.BytesIO(data), b""
    with gzip.open(compressed) as file:
        while text := file.read(_READ_BYTES):
            rest += text
            lines = _Lines(rest, _line_ends(rest))
            if len(lines.ends):
                yield lines
                rest = rest[int(lines.ends[-1]) + 1 :]
            if len(rest) > _MOST_LINE_BYTES:
                fail(path, f"has a line of more than {_MOST_LINE_BYTES} bytes: it is damaged")
            on_bytes(compressed.tell())
    if rest:
        ends = _line_ends(rest + b"\n")
        if not len(ends):
            fail(path, "ends within quotes: it was cut off, or is damaged; copy it again")
        yield _Lines(rest + b"\n", ends)


def _line_ends(text: bytes) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Of lines that do not end within quotes."""
    data = np.frombuffer(text, np.uint8)
    ends, quotes = np.flatnonzero(data == _NEWLINE), np.flatnonzero(data == _QUOTE)
    is_outside = np.searchsorted(quotes, ends) % 2 == 0
    return np.compress(is_outside, ends)


def _spans(path: str, number: int, lines: _Lines) -> np.ndarray[Any, np.dtype[np.int64]]:
    """[n, 2]: of each line, of which the first has this number, its two numbers."""
    data, ends = np.frombuffer(lines.text, np.uint8), lines.ends
    starts = np.append(0, ends[:-1] + 1)
    commas = np.append(np.flatnonzero(data == _COMMA), [len(data), len(data)])
    at = np.searchsorted(commas, starts)
    first, second = commas[at], np.minimum(commas[at + 1], ends - (data[ends - 1] == _RETURN))
    spans = np.stack([_numbers(data, starts, first), _numbers(data, first + 1, second)], axis=1)
    wrong = np.flatnonzero((spans < 0).any(axis=1))
    if len(wrong):
        line = lines.text[starts[wrong[0]] : ends[wrong[0]]]
        number += int(wrong[0]) + 1
        fail(path, f"line {number} is {short(line)}, and not first,last+1 of a document")
    return spans


def _numbers(
    data: Column, begins: np.ndarray[Any, np.dtype[np.int64]], ends: np.ndarray[Any, Any]
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The decimal numbers in these places; -1: there is none, or one that is too large."""
    lengths = ends - begins
    values = np.zeros(len(begins), np.int64)
    is_number = (lengths > 0) & (lengths <= _MOST_DIGITS)
    for place in range(min(_MOST_DIGITS, int(lengths.max()))):
        is_within = place < lengths
        digits = data[np.minimum(begins + place, len(data) - 1)] - np.uint8(ord("0"))
        is_number &= ~is_within | (digits < 10)
        values = np.where(is_within, values * 10 + digits, values)
    return np.where(is_number, values, -1)


def _check(one: Sought, number: int, last: int, spans: np.ndarray[Any, np.dtype[np.int64]]) -> None:
    """Documents follow each other, and lie within the tokens."""
    begins, ends = spans.T
    wrong = (begins < np.append(last, ends[:-1])) | (ends < begins) | (ends > one.num_tokens)
    if wrong.any():
        at = int(np.argmax(wrong))
        before = int(ends[at - 1]) if at else last
        fail(
            one.source,
            f"line {number + at + 1} says tokens {begins[at]} to {ends[at]}, after {before} and of "
            f"{one.num_tokens}: it is damaged, or of another file",
        )
