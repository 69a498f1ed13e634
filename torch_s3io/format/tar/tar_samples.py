"""The samples of tar archives, with some fields of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple, NoReturn

import numpy as np

from ...errors import DataError
from ...index.column_file import Column
from ...wording import is_text, printable
from ..keys import Keys, Numbers
from ..sample_table import SampleTable
from .tar_index import TarIndex

Missing = Literal["error", "skip", "empty"]


class TarField(NamedTuple):
    """A field that is wanted.

    Attributes:
        name: Its extension, in lower case.
        extension: Its number in the index; -1: no sample has it.
        is_optional: Samples without it have an empty one.
    """

    name: str
    extension: int
    is_optional: bool


def is_field(extension: str) -> bool:
    """Whether a batch can have a field of this name."""
    return extension != "" and is_text(extension)


class TarSampleTables(Keys):
    """The tables of the archives of a data set, and the keys of its samples. A pickle has the name
    of the index, and a number for each archive.

    Args:
        index: Of all of them.
        shards: Of each archive of the data set, its number in the index.
        fields: Of each sample.
        skips: Whether samples without a field that is not optional are left out.
    """

    def __init__(
        self, index: TarIndex, shards: Sequence[int], fields: Sequence[TarField], skips: bool
    ) -> None:
        self._index = index
        self._shards = np.array(shards, np.int64)
        self._fields = tuple(fields)
        needed = [one.extension for one in fields if not one.is_optional]
        counts = index.columns["counts"]
        self._needed = [one for one in needed if counts[one] < index.num_samples]
        self._skips = skips and bool(self._needed)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in _MADE}

    @property
    def leaves_out(self) -> bool:
        """Whether there are samples that are left out."""
        return self._skips

    def count(self, number: int) -> int:
        """Of the samples of an archive of the data set."""
        shard = int(self._shards[number])
        kept = self._kept[shard] if self._skips else None
        return len(self._index.rows(shard)) if kept is None else len(kept)

    def table(self, number: int) -> SampleTable:
        """Of an archive of the data set: views of the index, where it has a place for the field in
        each sample, and none is left out."""
        shard = int(self._shards[number])
        columns = [self._members(field.extension, shard) for field in self._fields]
        kept = self._kept[shard] if self._skips else None
        if kept is not None:
            columns = [(starts[kept], lengths[kept]) for starts, lengths in columns]
        return SampleTable(
            tuple(starts for starts, _ in columns),
            tuple(lengths[:, None] for _, lengths in columns),
        )

    def _members(self, extension: int, shard: int) -> tuple[Column, Column]:
        if extension >= 0:
            return self._index.members(extension, shard)
        count, width = len(self._index.rows(shard)), self._index.columns["lengths"].dtype
        return np.zeros(count, np.uint64), np.zeros(count, width)

    @cached_property
    def _kept(self) -> dict[int, Column | None]:
        """Of each shard, those of its samples that are not left out: uint32; None: all."""
        kept: dict[int, Column | None] = {}
        for shard in np.unique(self._shards).tolist():
            starts = [self._index.members(one, shard)[0] for one in self._needed]
            is_whole = np.logical_and.reduce([one > 0 for one in starts])
            kept[shard] = None if is_whole.all() else np.flatnonzero(is_whole).astype(np.uint32)
        return kept

    @cached_property
    def _firsts(self) -> Column:
        """The first sample of each archive: int64."""
        return np.cumsum([0, *(self.count(number) for number in range(len(self._shards)))])[:-1]

    @cached_property
    def _begins(self) -> Column:
        """The first sample of each archive, as the index counts them: int64."""
        return np.array([0, *self._index.shard_ends], np.int64)[self._shards]

    def of(self, numbers: Numbers) -> list[str]:
        archives = np.searchsorted(self._firsts, numbers, side="right") - 1
        rows = numbers - self._firsts[archives]
        if self._skips:
            shards = self._shards[archives]
            for shard in np.unique(shards).tolist():
                kept = self._kept[shard]
                if kept is not None:
                    rows[shards == shard] = kept[rows[shards == shard]]
        return self._index.keys(self._begins[archives] + rows)

    def refuse_unnamed(self, paths: Sequence[str]) -> None:
        """Raises DataError for the first file whose extension cannot be the name of a field.

        Args:
            paths: Of the archives of the data set.
        """
        unnamed = [one for one in self._fields if not is_field(one.name)]
        for path, shard in zip(paths if unnamed else [], self._shards.tolist(), strict=False):
            for field in unnamed:
                [there] = np.nonzero(self._index.members(field.extension, shard)[0])
                if len(there):
                    row = self._index.rows(shard)[int(there[0])]
                    key = self._index.keys(np.array([row]))[0]
                    raise DataError(
                        f"{printable(path)}: the end of '{printable(f'{key}.{field.name}')}' after "
                        "the first dot cannot be the name of a field: it is empty, or no UTF-8. "
                        "Name the fields that are wanted, as in SampleDataset.from_tar(..., "
                        "fields=('jpg', 'cls')), or write the archive anew with another name"
                    )

    def refuse_missing(self, paths: Sequence[str]) -> None:
        """Raises DataError for the first sample without a field that is not optional.

        Args:
            paths: Of the archives of the data set.
        """
        for number, path in enumerate(paths if self._needed else []):
            shard = int(self._shards[number])
            for field in self._fields:
                if field.extension not in self._needed or field.is_optional:
                    continue
                [missing] = np.nonzero(self._index.members(field.extension, shard)[0] == 0)
                if len(missing):
                    row = self._index.rows(shard)[int(missing[0])]
                    self._refuse(path, field.name, self._index.keys(np.array([row]))[0])

    def _refuse(self, path: str, field: str, key: str) -> NoReturn:
        raise DataError(
            f"{printable(path)}: sample '{printable(key)}' has no field {field!r}. "
            f"fields=({field + '?'!r}, ...) makes it empty where it is missing; missing='skip' "
            "leaves such samples out; missing='empty' makes every field empty where it is missing. "
            "These are options of SampleDataset.from_tar"
        )


_MADE = ("_kept", "_firsts", "_begins")
