"""Samples of any length, found by tables."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .. import _C
from ..errors import DataError
from ..wording import printable, size_text
from .delivery import KEY, Decoded, Delivery
from .keys import JoinedKeys, Keys
from .objects import Column, Objects, Shard
from .records import FieldInfo, Mismatch
from .sample_layout import SampleField, SampleLayout
from .sample_table import SampleTable
from .varying_records import VaryingRecords

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class TablePlace:
    """A table, and what it is of.

    Attributes:
        load: Reads the table, or makes it. Called once in each process that was not forked from
            one that has it; pickled for those.
        ends: Of each object, in bytes: no sample reaches beyond. Of one object: int. None: as the
            table says.
        identity: For JSON: what else tells its objects from others of these names and sizes.
    """

    load: Callable[[], SampleTable]
    ends: int | Column | None = None
    identity: Any = None

    def end_column(self, table: SampleTable) -> Column:
        """uint64, of each object."""
        if self.ends is None:
            assert table.ends is not None
            return table.ends
        return np.array(self.ends, np.uint64, ndmin=1)


@dataclass(frozen=True)
class SampleSizes:
    """Of many samples, each from its start to its end.

    Attributes:
        count: Of the samples.
        total_bytes: Of all of them.
        largest_bytes: Of the largest one.
        span_bytes: From the first one's start to the last one's end, in all objects.
    """

    count: int
    total_bytes: int
    largest_bytes: int
    span_bytes: int

    @classmethod
    def of(cls, tables: Sequence[SampleTable], layout: SampleLayout) -> Self:
        """Of all samples of these tables."""
        count = total = largest = span = 0
        for table in tables:
            if table.num_samples == 0:
                continue
            lengths = [column.astype(np.uint64) for column in table.lengths]
            pieces = layout.places(table.num_samples, lengths)[1]
            sizes = sum(pieces[1:], pieces[0])
            count += len(sizes)
            total += int(sizes.sum())
            largest = max(largest, int(sizes.max()))
            span += max(int(sizes.sum()), _span(table, pieces))
        return cls(count, total, largest, span)


def _span(table: SampleTable, pieces: Sequence[Column]) -> int:
    """From the first byte of a sample to the last one, in all objects together."""
    if any(starts is None for starts in table.starts):
        return 0
    firsts = np.zeros(1, np.intp) if table.first_samples is None else table.first_samples
    firsts = firsts[: np.searchsorted(firsts, table.num_samples)].astype(np.intp)
    starts = [one for one in table.starts if one is not None]
    begins = np.minimum.reduce(starts)
    ends = np.maximum.reduce([one + size for one, size in zip(starts, pieces, strict=True)])
    spans = np.maximum.reduceat(ends, firsts) - np.minimum.reduceat(begins, firsts)
    return int(spans.sum())


class SampleRecords(VaryingRecords):
    """Samples of one layout.

    Args:
        layout: Of each of them.
        objects: In the order of the samples.
        places: Of the tables, in the order of their objects.
        sizes: Of all of them; of several data sets, one for each. None: as the tables say.
        delivery: In which form the loop gets them.
        checks: Whether each sample's checksum is compared, where it has one.
        tables: Where somebody has them.
        classes: The names of the labels, where these are numbers of names.
        keys: Of all samples, where they have some.
    """

    noun = "sample"

    def __init__(
        self,
        layout: SampleLayout,
        objects: Iterable[Shard],
        places: Sequence[TablePlace],
        sizes: Sequence[SampleSizes] | None,
        delivery: Delivery,
        checks: bool = False,
        tables: Sequence[SampleTable] | None = None,
        classes: tuple[str, ...] = (),
        keys: Keys | None = None,
    ) -> None:
        self.layout = layout
        self.objects = Objects.of(objects)
        self._places = places
        self._delivery = delivery
        self._checks = checks
        self._tables = tables
        self.classes = classes
        self._keys = keys
        self._sizes = [SampleSizes.of(self.tables(), layout)] if sizes is None else sizes

    def tables(self) -> Sequence[SampleTable]:
        """Of all objects; read once in each process."""
        if self._tables is None:
            self._tables = [one.load() for one in self._places]
        return self._tables

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tables": None}

    @property
    def record_bytes(self) -> int:
        return sum(sizes.total_bytes for sizes in self._sizes) // self.num_records

    @property
    def spacing_bytes(self) -> int:
        return max(1, sum(sizes.span_bytes for sizes in self._sizes) // self.num_records)

    @property
    def fields(self) -> Sequence[FieldInfo]:
        return [
            FieldInfo(field.name, getattr(torch, field.stored), field.shape)
            for field in self._delivery.fields
        ]

    @property
    def described(self) -> str:
        return f"{size_text(self.record_bytes)} on average"

    def identity(self) -> list[Any]:
        columns = np.ascontiguousarray(self.objects.num_records, "<i8")
        counts = hashlib.blake2b(columns.data, digest_size=12).hexdigest()
        return [[asdict(field) for field in self.layout.fields], self.layout.record_bytes, counts]

    def contents(self) -> list[Any]:
        return [one.identity for one in self._places if one.identity is not None]

    def make_form(self, alignment: int, with_record_numbers: bool) -> _C.SampleForm:
        return _C.SampleForm(
            objects=self.objects.to_core(),
            tables=self._core_tables(),
            fields=[_core_field(field) for field in self.layout.fixed],
            record_bytes=self.layout.record_bytes,
            in_table=[
                _C.TableField(name=field.name, type=field.stored, shape=field.open_shape)
                for field in self.layout.in_table
            ],
            ragged=[_core_ragged(field) for field in self.layout.ragged],
            largest_sample_bytes=max(sizes.largest_bytes for sizes in self._sizes),
            typical_bytes=self.spacing_bytes,
            realigns=self.layout.realigns,
            alignment=alignment,
            with_record_numbers=with_record_numbers or self._delivery.needs_numbers,
        )

    def _core_tables(self) -> list[_C.SampleTable]:
        """Raises DataError for a table of other samples than those that were found."""
        made, first = [], 0
        for place, table in zip(self._places, self.tables(), strict=True):
            ends = place.end_column(table)
            found = int(self.objects.num_records[first : first + len(ends)].sum())
            if table.num_samples != found:
                raise DataError(
                    f"{self.objects.path(first)}: its table has {table.num_samples} samples, but "
                    f"{found} were found in it: its format, or the file, has changed"
                )
            made.append(self._core_table(table, ends))
            first += len(ends)
        return made

    def _core_table(self, table: SampleTable, ends: Column) -> _C.SampleTable:
        sums = table.crc32c if self._checks else None
        firsts = table.first_samples
        return _C.SampleTable(
            num_samples=table.num_samples,
            first_samples=None if firsts is None else firsts.data,
            ends=ends.data,
            starts=[None if starts is None else starts.data for starts in table.starts],
            length_bytes=table.lengths[0].itemsize if table.lengths else 4,
            lengths=[column.data for column in table.lengths],
            values=[column.data for column in table.values],
            crc32c=None if sums is None else sums.data,
        )

    def joined(self, others: Sequence[Self]) -> Self:
        for number, other in enumerate(others, 1):
            if other.layout != self.layout:
                raise Mismatch(number, "SampleWriter writes other fields anew")
            if self._delivery.unpack or other._delivery.unpack:
                raise Mismatch(number, "archives with compressed arrays cannot be parts")
            if other._delivery != self._delivery:
                raise Mismatch(number, "give all of them the same ragged=, decode= and return_key=")
            if other.classes != self.classes:
                raise Mismatch(number, "their labels are of other classes: give labels=array")
        every = (self, *others)
        are_there = all(part._tables is not None for part in every)
        keys = [(part._keys, part.num_records) for part in every if part._keys is not None]
        return type(self)(
            self.layout,
            Objects.joined([part.objects for part in every]),
            [one for part in every for one in part._places],
            [sizes for part in every for sizes in part._sizes],
            self._delivery,
            any(part._checks for part in every),
            [table for part in every for table in part.tables()] if are_there else None,
            self.classes,
            JoinedKeys(keys) if self._delivery.return_key else None,
        )

    @property
    def has_checksums(self) -> Column:
        if not self._checks:
            return super().has_checksums
        tables = list(zip(self._places, self.tables(), strict=True))
        have = [table.crc32c is not None for _, table in tables]
        return np.repeat(have, [len(place.end_column(table)) for place, table in tables])

    def finished(self, batch: Any, with_record_numbers: bool) -> Any:
        made, numbers = batch if isinstance(batch, tuple) else (batch, None)
        delivered = self._delivery.of_batch(
            made, numbers, lambda place: self._name_of(int(numbers[place]))
        )
        if self._delivery.return_key and self._keys is not None:
            delivered[KEY] = Decoded(self._keys.of(numbers.numpy()))
        return (delivered, numbers) if with_record_numbers else delivered

    def _name_of(self, number: int) -> str:
        """A sample, for errors."""
        ends = np.cumsum(self.objects.num_records)
        of = int(np.searchsorted(ends, number, side="right"))
        path = printable(self.objects.path(of))
        if self._keys is None or self.objects.num_records[of] == 1:
            return f"{path}: sample {number}"
        [key] = self._keys.of(np.array([number], np.int64))
        return f"{path}: sample {number}, '{printable(key)}'"


def _core_field(field: SampleField) -> _C.Field:
    return _C.Field(
        name=field.name,
        type=field.stored,
        output=field.stored,
        swap_bytes=field.swap_bytes,
        offset=field.offset,
        shape=field.open_shape,
    )


def _core_ragged(field: SampleField) -> _C.RaggedField:
    return _C.RaggedField(
        name=field.name,
        type=field.stored,
        swap_bytes=field.swap_bytes,
        shape=field.open_shape,
        piece=field.piece,
    )
