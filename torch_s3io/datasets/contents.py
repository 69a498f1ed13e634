"""What a data set says of the files and records that it reads."""

from __future__ import annotations

from typing import TypeVar

import torch

from ..format.files import DataFile, Shard
from ..format.layout import RecordLayout

_T = TypeVar("_T")


class Contents:
    """Of the files of a data set; a view has those of what it is a view of."""

    _shards: list[Shard]
    _layout: RecordLayout

    @property
    def files(self) -> tuple[DataFile, ...]:
        """The files in the order of their records: record 0 is the first one of ``files[0]``.

        A view has the files, and their counts, of what it is a view of; a Mix those of its parts,
        one part after the other.
        """
        return tuple(DataFile(shard.path, shard.num_records) for shard in self._shards)

    @property
    def dtype(self) -> torch.dtype | dict[str, torch.dtype]:
        """Of a batch's tensor; of a structured dtype, of the tensors of its dict."""
        return self._of_fields([field.output_dtype for field in self._layout.fields])

    @property
    def shape(self) -> tuple[int, ...] | dict[str, tuple[int, ...]]:
        """Of one record; of a structured dtype, of its fields."""
        return self._of_fields([field.shape for field in self._layout.fields])

    def _of_fields(self, values: list[_T]) -> _T | dict[str, _T]:
        names = [field.name for field in self._layout.fields]
        return values[0] if self._layout.is_plain else dict(zip(names, values, strict=True))

    @property
    def unused_tail_bytes(self) -> int:
        """Bytes at the ends of files that are too few for a record, in all files together.

        Padding, or tokens left out, between records and after the last one do not count.
        """
        return sum(shard.unused_bytes(self._layout) for shard in self._shards)
