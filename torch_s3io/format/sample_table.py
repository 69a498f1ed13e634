"""Where samples are: tables, and those at the ends of the shards of our own format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from .. import _C
from ..errors import DataError, NotFoundError
from ..store.stores import store_of
from ..wording import printable, short
from .checked_json import MOST
from .objects import Column
from .sample_layout import Lengths, SampleLayout, padded_column
from .samples import SampleManifest, SampleShard

_BLOCK = 1 << 16  # samples that are checked at once


@dataclass(frozen=True)
class SampleTable:
    """Where the samples of one object are, or of several successive ones. Arrays, of which nothing
    is copied.

    Attributes:
        starts: Of each piece of a sample, in bytes from the start of its object: uint64 [n]; None:
            0, in all samples.
        lengths: Per ragged field, of its open axes: uint32 or uint64 [n, k].
        crc32c: Of each sample from its start to its end: uint32 [n]; None: it has none.
        first_samples: Of each object the first of its samples: uint64; None: there is one object,
            or one sample in each.
        values: Of the fields that are in the table: [n, *shape].
        ends: Of each object, in bytes: no sample reaches beyond. uint64; None: as its place says.
    """

    starts: tuple[Column | None, ...]
    lengths: tuple[Lengths, ...]
    crc32c: Column | None = None
    first_samples: Column | None = None
    values: tuple[Column, ...] = ()
    ends: Column | None = None

    @property
    def num_samples(self) -> int:
        return next(len(one) for one in (*self.starts, *self.lengths) if one is not None)


def needed_length_bytes(lengths: Sequence[Lengths]) -> int:
    """4, or 8 where a length does not fit into that."""
    return 8 if any(column.size and int(column.max()) >> 32 for column in lengths) else 4


def pack_table(
    starts: np.ndarray[Any, Any],
    lengths: Sequence[Lengths],
    crc32c: np.ndarray[Any, Any],
    length_bytes: int,
) -> bytes:
    """The table as it is written."""
    columns = [starts.astype("<u8"), *(part.astype(f"<u{length_bytes}") for part in lengths)]
    parts = []
    for column in [*columns, crc32c.astype("<u4")]:
        parts += [column.tobytes(), bytes(padded_column(column.nbytes) - column.nbytes)]
    return b"".join(parts)


def view_table(
    table: Any, shard: SampleShard, layout: SampleLayout, path: str | None = None
) -> SampleTable:
    """Views of the bytes of a table, of which nothing but their number is checked.

    Args:
        path: Of the shard, for errors.

    Raises:
        DataError: There are too few, or too many.
    """
    view = memoryview(table).cast("B")
    if view.nbytes != layout.table_bytes(shard.num_samples, shard.length_bytes):
        _fail(
            path or shard.name,
            f"its table has {view.nbytes} bytes, but one of {shard.num_samples} samples has "
            f"{layout.table_bytes(shard.num_samples, shard.length_bytes)}",
        )
    columns, begin = [], 0
    for size in layout.column_bytes(shard.num_samples, shard.length_bytes):
        columns.append(view[begin : begin + size])
        begin += padded_column(size)
    shapes = [(shard.num_samples, len(field.open_axes)) for field in layout.ragged]
    return SampleTable(
        (np.frombuffer(columns[0], "<u8"),),
        tuple(
            np.frombuffer(column, f"<u{shard.length_bytes}").reshape(shape)
            for column, shape in zip(columns[1:-1], shapes, strict=True)
        ),
        np.frombuffer(columns[-1], "<u4"),
    )


def read_table(
    table: Any, shard: SampleShard, manifest: SampleManifest, path: str | None = None
) -> SampleTable:
    """Views of the bytes of a table, all checked: each sample lies within the shard, behind the one
    before it, at a multiple of the data set's alignment, and is not larger than the manifest says.

    Args:
        path: Of the shard, for errors.

    Raises:
        DataError: Something is wrong; the text has the file and the number of the sample in it.
    """
    name = path or shard.name
    view = memoryview(table).cast("B")
    found = view_table(view, shard, manifest.layout, name)
    crc32c = _C.crc32c(view)
    if crc32c != shard.table_crc32c:
        _fail(name, f"the checksum of its table is {crc32c:08x}, not {shard.table_crc32c:08x}")
    end = 0
    for begin in range(0, shard.num_samples, _BLOCK):
        end = _check_block(found, begin, end, manifest, name)
    if end > shard.table_offset:
        last = shard.num_samples - 1
        _fail(
            name,
            f"sample {last} ends at byte {end}, behind the samples' end at {shard.table_offset}",
        )
    return found


def load_table(path: str, shard: SampleShard, manifest: SampleManifest) -> SampleTable:
    """Reads the table of a shard from its file, and checks it as ``read_table``.

    Raises:
        DataError: The file has another size, or its table is wrong.
        NotFoundError, AccessError, ReadError: It cannot be opened or read.
    """
    store = store_of(path)
    try:
        # One byte more: a file that was appended to has it.
        table = store.read(path, shard.table_offset, shard.size_bytes + 1)
    except NotFoundError:
        raise NotFoundError(
            f"{printable(path)}: a shard of the data set is missing; copy it again"
        ) from None
    if len(table) != shard.size_bytes - shard.table_offset:
        _fail(
            path,
            f"its table has {len(table)} bytes, but the manifest says "
            f"{shard.size_bytes - shard.table_offset}: it was cut off or appended to",
        )
    return read_table(table, shard, manifest, path)


def _check_block(
    table: SampleTable, begin: int, end: int, manifest: SampleManifest, name: str
) -> int:
    """Checks the samples from ``begin`` on, of which the one before ends at ``end``. Gives the end
    of the last one."""
    stop = min(begin + _BLOCK, table.num_samples)
    starts = _starts_of(table)[begin:stop].astype(np.uint64)
    sizes = _sizes(table, begin, stop, manifest, name)

    def refuse(wrong: np.ndarray[Any, Any], text: str) -> None:
        for number in wrong.nonzero()[0][:1].tolist():
            values = {"start": starts[number], "size": sizes[number]}
            _fail(name, f"sample {begin + number} {text.format(**values)}")

    refuse(starts > MOST, "begins at byte {start}, which no file has")
    mask = np.uint64(manifest.alignment - 1)
    refuse(
        (starts & mask) != 0,
        f"begins at byte {{start}}, not at a multiple of {manifest.alignment}",
    )
    refuse(
        sizes > manifest.largest_sample_bytes,
        f"has {{size}} bytes, more than the {manifest.largest_sample_bytes} of the largest one",
    )
    ends = starts + sizes
    before = np.concatenate([np.array([end], np.uint64), ends[:-1]])
    refuse(starts < before, "begins at byte {start}, before the end of the one before it")
    return int(ends[-1])


def _sizes(
    table: SampleTable, begin: int, stop: int, manifest: SampleManifest, name: str
) -> np.ndarray[Any, Any]:
    """The bytes of samples, none of which overflows: uint64 [stop - begin]."""
    lengths = [column[begin:stop].astype(np.uint64) for column in table.lengths]
    largest = manifest.largest_lengths
    for field, column, most in zip(manifest.layout.ragged, lengths, largest, strict=True):
        wrong = (column > np.array(most, np.uint64)).any(axis=1)
        as_floats = column.astype(np.float64).prod(axis=1) * field.item_bytes
        for number in (wrong | (as_floats > MOST // 4096)).nonzero()[0][:1].tolist():
            _fail(
                name,
                f"sample {begin + number}: field {short(field.name)} has the lengths "
                f"{column[number].tolist()}, more than the greatest ones, {list(most)}, or than "
                "any file has",
            )
    return manifest.layout.places(stop - begin, lengths)[1][0]


def _fail(name: str, text: str) -> NoReturn:
    raise DataError(f"{printable(name)}: {text}; copy the data set again, or write it anew")


def samples_in(table: SampleTable, layout: SampleLayout) -> Iterator[tuple[int, int]]:
    """Start and end of each sample of a table that was checked."""
    column = _starts_of(table)
    for begin in range(0, table.num_samples, _BLOCK):
        part = slice(begin, begin + _BLOCK)
        starts = column[part]
        lengths = [column[part].astype(np.uint64) for column in table.lengths]
        sizes = layout.places(len(starts), lengths)[1][0]
        yield from zip(starts.tolist(), (starts + sizes).tolist(), strict=True)


def _starts_of(table: SampleTable) -> Column:
    """Of samples in one piece."""
    [starts] = table.starts
    assert starts is not None
    return starts
