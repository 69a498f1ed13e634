"""The index of tar archives: where the members of each sample are, whatever fields are wanted.

Columns, of S shards (archives, sorted by their names), N samples and E extensions:

    names, name_ends      of shards, relative to their common folder: uint8, uint64 [S]
    versions              of shards, size in bytes and time of change in ns: int64 [S, 2]
    shard_ends            samples up to the end of each shard: uint64 [S]
    begins, stops         of shards, first and last byte of a sample: uint64 [S]
    extensions, extension_ends                        UTF-8: uint8, uint64 [E]
    counts, total_bytes, largest_bytes                of the members of each extension: uint64 [E]
    keys, key_ends        of samples: uint8, uint64 [N]
    dense                 the D extensions that at least an eighth of the samples have: uint64 [D]
    starts, lengths       of these: uint64 [D, N], uint32 or uint64 [D, N]; start 0: it is missing
    sparse_ends           members of the other extensions up to each one: uint64 [E]
    sparse_samples, sparse_starts, sparse_lengths     of these members, by extension: uint64
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, NoReturn

import numpy as np

from ...errors import DataError
from ...index.column_file import Column, ColumnFile
from ...wording import printable
from ..keys import Numbers

RECIPE = {"kind": "tar", "version": 1}
MOST_EXTENSIONS = 4096  # each program has a text of each
_OF_SHARDS = ("names", "name_ends", "versions", "shard_ends", "begins", "stops")
_OF_EXTENSIONS = ("extensions", "extension_ends", "counts", "total_bytes", "largest_bytes")
_MOST_COMPARED = 16 << 20  # bytes, which takes a few milliseconds
_SMALL = (*_OF_SHARDS, *_OF_EXTENSIONS, "dense", "sparse_ends")


class TarIndex:
    """An index in this process. A pickle has the name of its file.

    Args:
        file: Columns as above.
    """

    def __init__(self, file: ColumnFile) -> None:
        self.file = file

    def __getstate__(self) -> dict[str, Any]:
        return {"file": self.file}

    @cached_property
    def columns(self) -> dict[str, Column]:
        """All. The checksums of the small ones are compared, and the others fit them; of a small
        index all are compared.

        Raises:
            DataError: They do not; and what ``ColumnFile.columns`` raises.
        """
        self.file.check(*_SMALL)
        if sum(one.nbytes for one in self.file.columns.values()) <= _MOST_COMPARED:
            self.file.check()
        columns = dict(self.file.columns)
        for name, (types, shape) in self._expected(columns).items():
            column = columns.get(name)
            if column is None or column.dtype.str not in types or column.shape != shape:
                self._fail(f"column {name} has not the shape {shape}, of {types[0]}")
        for name in ("name_ends", "shard_ends", "extension_ends", "sparse_ends"):
            if (columns[name][1:] < columns[name][:-1]).any():
                self._fail(f"column {name} does not ascend")
        if len(columns["extension_ends"]) > MOST_EXTENSIONS:
            self._fail(f"column extensions has more than {MOST_EXTENSIONS}")
        if (columns["dense"] >= len(columns["extension_ends"])).any():
            self._fail("column dense names an extension that there is not")
        return columns

    def _expected(self, columns: Mapping[str, Column]) -> dict[str, tuple[Any, tuple[int, ...]]]:
        """Of each column its possible types and its shape, as its size or another column say."""
        sizes = {name: column.size for name, column in columns.items()}
        shards, extensions, dense = (sizes[n] for n in ("name_ends", "extension_ends", "dense"))
        samples, members = (_last(columns[name]) for name in ("shard_ends", "sparse_ends"))
        texts = {name: (sizes[name],) for name in ("names", "extensions")}
        numbers = {
            **{name: (shards,) for name in ("name_ends", "shard_ends", "begins", "stops")},
            **{name: (extensions,) for name in ("extension_ends", "sparse_ends", "counts")},
            **{name: (extensions,) for name in ("total_bytes", "largest_bytes")},
            **{name: (members,) for name in ("sparse_samples", "sparse_starts", "sparse_lengths")},
            **{"dense": (dense,), "starts": (dense, samples), "key_ends": (samples,)},
        }
        return {
            **{name: (("|u1",), shape) for name, shape in texts.items()},
            **{name: (("<u8",), shape) for name, shape in numbers.items()},
            "keys": (("|u1",), (sizes.get("keys", 0),)),
            "lengths": (("<u4", "<u8"), (dense, samples)),
            "versions": (("<i8",), (shards, 2)),
        }

    def _fail(self, text: str) -> NoReturn:
        raise DataError(
            f"{printable(self.file.path)}: {text}: the index is damaged; remove this file, and it "
            "is made again"
        )

    @cached_property
    def shard_ends(self) -> list[int]:
        ends: list[int] = self.columns["shard_ends"].tolist()
        return ends

    @property
    def num_samples(self) -> int:
        return self.shard_ends[-1] if self.shard_ends else 0

    @cached_property
    def names(self) -> list[str]:
        """Of the shards."""
        return self._texts("names", "name_ends")

    @cached_property
    def extensions(self) -> list[str]:
        return self._texts("extensions", "extension_ends")

    def _texts(self, texts: str, ends: str) -> list[str]:
        every, stops = self.columns[texts].tobytes(), self.columns[ends].tolist()
        begins = [0, *stops][: len(stops)]
        return [_as_text(every[one:stop]) for one, stop in zip(begins, stops, strict=True)]

    def rows(self, shard: int) -> range:
        """The samples of a shard."""
        return range(self.shard_ends[shard - 1] if shard else 0, self.shard_ends[shard])

    def members(self, extension: int, shard: int) -> tuple[Column, Column]:
        """Starts and lengths of this extension in the samples of a shard: uint64 [n], and uint32 or
        uint64 [n]. A start of 0: it is missing. Those of a dense extension are views."""
        rows = self.rows(shard)
        starts, lengths = self.columns["starts"], self.columns["lengths"]
        [places] = np.nonzero(self.columns["dense"] == extension)
        if len(places):
            part = slice(rows.start, rows.stop)
            return starts[places[0], part], lengths[places[0], part]
        made_starts, made_lengths = (np.zeros(len(rows), one.dtype) for one in (starts, lengths))
        samples, begins, sizes = self.sparse(extension, rows)
        made_starts[samples], made_lengths[samples] = begins, sizes
        return made_starts, made_lengths

    def sparse(self, extension: int, rows: range) -> tuple[Column, Column, Column]:
        """Samples, counted from the first one of the rows, starts and lengths of the members of an
        extension that is not dense."""
        ends = self.columns["sparse_ends"]
        first, last = int(ends[extension - 1]) if extension else 0, int(ends[extension])
        samples = self.columns["sparse_samples"][first:last]
        begin, end = first + np.searchsorted(samples, (rows.start, rows.stop))
        found = self.columns["sparse_samples"][begin:end].astype(np.int64) - rows.start
        if len(found) and not (found.min() >= 0 and found.max() < len(rows)):
            self._fail("column sparse_samples is not ascending")
        return (
            found,
            self.columns["sparse_starts"][begin:end],
            self.columns["sparse_lengths"][begin:end],
        )

    def keys(self, rows: Numbers) -> list[str]:
        """Of these samples, whatever shards they are in."""
        ends = self.columns["key_ends"]
        stops = ends[rows].astype(np.int64)
        begins = np.where(rows > 0, ends[np.maximum(rows, 1) - 1], 0).astype(np.int64)
        every = self.columns["keys"]
        if len(rows) and not (
            (begins <= stops).all() and begins.min() >= 0 and stops.max() <= len(every)
        ):
            self._fail("column key_ends is wrong")
        places = zip(begins.tolist(), stops.tolist(), strict=True)
        return [_as_text(every[begin:stop].tobytes()) for begin, stop in places]


def _last(column: Column) -> int:
    """The last number; 0 where there is none, or no number."""
    return int(column.reshape(-1)[-1]) if column.size and column.dtype.kind == "u" else 0


def _as_text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
