"""Samples of any length, found by tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .. import _C
from ..wording import size_text
from .delivery import Delivery
from .files import Shard
from .records import FieldInfo, Mismatch, Records
from .sample_layout import SampleField, SampleLayout
from .sample_table import SampleTable

if TYPE_CHECKING:
    from typing_extensions import Self

# Of batches of neighbours, those that a buffer holds.
_HELD = 0.995
# Of so many pieces of the objects at most their spans are looked at.
_MOST_SPANS = 1 << 18
# So many mean batches a buffer has room for at most.
_MOST_MEANS = 16


@dataclass(frozen=True)
class SampleObject:
    """One object, and where its samples are.

    Attributes:
        shard: ``num_records`` are its samples.
        end: No sample reaches beyond this byte.
        load: Reads the table, or makes it. Called once in each process that was not forked from
            one that has it; pickled for those.
        identity: For JSON: what else tells it from another object of this name and size.
    """

    shard: Shard
    end: int
    load: Callable[[], SampleTable]
    identity: Any = None


@dataclass(frozen=True)
class SampleSizes:
    """Of many samples, each from its start to its end.

    Attributes:
        count: Of the samples.
        total_bytes: Of all of them.
        rms_bytes: The root of the mean of their squares.
        largest_bytes: Of the largest one.
        span_bytes: From the first one's start to the last one's end, in all objects.
    """

    count: int
    total_bytes: int
    rms_bytes: float
    largest_bytes: int
    span_bytes: int

    @property
    def mean_bytes(self) -> float:
        return self.total_bytes / self.count

    @property
    def variance(self) -> float:
        """Of their bytes."""
        return max(0.0, self.rms_bytes**2 - self.mean_bytes**2)

    @classmethod
    def of(cls, tables: Sequence[SampleTable], layout: SampleLayout) -> Self:
        """Of all samples of these tables."""
        count = total = largest = span = 0
        squares = 0.0
        for table in tables:
            if len(table.starts) == 0:
                continue
            lengths = [column.astype(np.uint64) for column in table.lengths]
            sizes = layout.places(len(table.starts), lengths)[1]
            count += len(sizes)
            total += int(sizes.sum())
            squares += float((sizes.astype(np.float64) ** 2).sum())
            largest = max(largest, int(sizes.max()))
            span += int((table.starts + sizes).max()) - int(table.starts.min())
        return cls(count, total, math.sqrt(squares / max(1, count)), largest, span)


class SampleRecords(Records):
    """Samples of one layout.

    Args:
        layout: Of each of them.
        objects: In the order of the samples.
        sizes: Of all of them; of several data sets, one for each.
        delivery: In which form the loop gets them.
        checks: Whether each sample's checksum is compared, where it has one.
    """

    noun = "sample"

    def __init__(
        self,
        layout: SampleLayout,
        objects: Sequence[SampleObject],
        sizes: Sequence[SampleSizes],
        delivery: Delivery,
        checks: bool = False,
    ) -> None:
        self.layout = layout
        self.objects = objects
        self.shards = [one.shard for one in objects]
        self._sizes = sizes
        self._delivery = delivery
        self._checks = checks
        self._tables: list[SampleTable] | None = None

    def tables(self) -> list[SampleTable]:
        """Of all objects; read once in each process."""
        if self._tables is None:
            self._tables = [one.load() for one in self.objects]
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
            for field in self.layout.fields
        ]

    @property
    def described(self) -> str:
        return f"{size_text(self.record_bytes)} on average"

    def identity(self) -> list[Any]:
        counts = [one.shard.num_records for one in self.objects]
        return [[asdict(field) for field in self.layout.fields], self.layout.record_bytes, counts]

    def contents(self) -> list[Any]:
        return [one.identity for one in self.objects if one.identity is not None]

    def make_form(self, alignment: int, with_record_numbers: bool) -> _C.SampleForm:
        return _C.SampleForm(
            paths=[shard.path for shard in self.shards],
            tables=[
                self._core_table(one, table)
                for one, table in zip(self.objects, self.tables(), strict=True)
            ],
            fields=[_core_field(field) for field in self.layout.fixed],
            record_bytes=self.layout.record_bytes,
            ragged=[_core_ragged(field) for field in self.layout.ragged],
            largest_sample_bytes=max(sizes.largest_bytes for sizes in self._sizes),
            typical_bytes=self.spacing_bytes,
            alignment=alignment,
            with_record_numbers=with_record_numbers,
        )

    def _core_table(self, one: SampleObject, table: SampleTable) -> _C.SampleTable:
        sums = table.crc32c if self._checks else None
        return _C.SampleTable(
            end=one.end,
            length_bytes=table.lengths[0].itemsize if table.lengths else 4,
            starts=table.starts.data,
            lengths=[column.data for column in table.lengths],
            crc32c=None if sums is None else sums.data,
        )

    def joined(self, others: Sequence[Self]) -> Self:
        for number, other in enumerate(others, 1):
            if type(other) is not type(self) or other.layout != self.layout:
                raise Mismatch(number, "SampleWriter writes other fields anew")
            if other._delivery != self._delivery:
                raise Mismatch(number, "give all of them the same ragged= and decode=")
        every = (self, *others)
        joined = type(self)(
            self.layout,
            [one for part in every for one in part.objects],
            [sizes for part in every for sizes in part._sizes],
            self._delivery,
            any(part._checks for part in every),
        )
        if all(part._tables is not None for part in every):
            joined._tables = [table for part in every for table in part.tables()]
        return joined

    def buffer_bytes(self, form: _C.BatchForm, count: int, neighbours: int, mixed_runs: int) -> int:
        """Of about 1.5 mean batches of 64 samples whose lengths vary as a log-normal distribution's
        of sigma 1 do, of less where they vary less; never more than the largest batch needs, nor
        than that of a few samples that are much larger than all others."""
        assert isinstance(form, _C.SampleForm)
        likely = self._likely_bytes_at_random(form, count, neighbours, mixed_runs)
        if neighbours > 1 and mixed_runs == 1:
            likely = max(likely, self._likely_bytes_of_runs(form, count, neighbours))
        likely = min(likely, _MOST_MEANS * count * (self.record_bytes + 2 * form.run_alignment))
        wanted = form.fixed_bytes(count) + math.ceil(likely)
        return min(wanted, form.most_bytes(count))

    def _likely_bytes_at_random(
        self, form: _C.SampleForm, count: int, neighbours: int, mixed_runs: int
    ) -> float:
        """What few batches exceed whose samples come at random, of so many runs of neighbours at a
        time, or of all."""
        mixed = self.num_records if mixed_runs == 1 else neighbours * mixed_runs
        # One that is read by itself takes a block more than its own bytes, on average. One that is
        # read together with the next one takes the gap between them. At random, gaps have an
        # exponential distribution.
        block_bytes, most_gap = form.run_alignment, form.MOST_GAP
        stride = max(1, mixed // count)
        gaps = np.maximum(self._spans(stride) / stride * (mixed / count - 1), 1.0)
        alone = np.exp(-most_gap / gaps)
        read_gap = float((gaps - (gaps + most_gap) * alone).mean())
        extra_bytes = read_gap + float(alone.mean()) * block_bytes
        extra_variance = most_gap * read_gap + block_bytes**2 / 4
        if mixed_runs > 1:  # those that come together may all be large
            extra_variance += (
                count * float((self._spans(neighbours) / neighbours).var()) / mixed_runs
            )
        return 2 * block_bytes + max(
            _exceeded_by_few(count, sizes.mean_bytes + extra_bytes, sizes.variance + extra_variance)
            for sizes in self._sizes
        )

    def _likely_bytes_of_runs(self, form: _C.SampleForm, count: int, neighbours: int) -> float:
        """What few batches exceed that are runs of neighbours: where the samples lie by length,
        large ones come together."""
        length = min(count, neighbours)
        spans, runs = self._spans(length), count / length
        blocks_bytes = (math.ceil(runs) + 1) * 2 * form.run_alignment
        mean, large = float(spans.mean()), float(np.quantile(spans, _HELD))
        if runs == 1:
            return large + blocks_bytes
        likely = _exceeded_by_few(runs, mean, float(spans.var()))
        return max(likely, large + (runs - 1) * mean) + blocks_bytes

    def _spans(self, count: int) -> np.ndarray[Any, Any]:
        """From the start of a sample to that of the one ``count`` later, all over the objects."""
        step = count * max(1, self.num_records // count // _MOST_SPANS)
        spans: list[np.ndarray[Any, Any]] = []
        for one, table in zip(self.objects, self.tables(), strict=True):
            begins, ends = table.starts[::step], table.starts[count::step]
            if len(ends) < len(begins):  # to the end of the object
                ends = np.append(ends, np.uint64(one.end))
            spans.append(np.abs(ends.astype(np.float64) - begins.astype(np.float64)))
        return np.concatenate(spans)

    def least_buffer_bytes(self, needed: int, count: int) -> int:
        mean = sum(sizes.total_bytes for sizes in self._sizes) / self.num_records
        return min(needed, math.ceil(mean * count))

    def buffer_problem(self, buffer_size: int, needed: int, count: int) -> str:
        typical = self.least_buffer_bytes(needed, count)
        if buffer_size >= typical:
            return ""
        return (
            f"BufferPoolConfig.buffer_size is {buffer_size} bytes, but {count} samples have "
            f"{typical} on average, so that most batches would not fit: raise it, to {needed} "
            "where hardly any should get memory of its own, or lower batch_size"
        )

    def finished(self, batch: Any) -> Any:
        return self._delivery.of_batch(batch)


def _exceeded_by_few(count: float, mean: float, variance: float) -> float:
    """What under 1 % of the sums of ``count`` independent parts exceed, also of those that vary as
    a log-normal distribution's of sigma 1 do. Sums of few parts are spread more unevenly."""
    return count * mean + (3 + min(1.0, 16 / count)) * math.sqrt(count * variance)


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
    )
