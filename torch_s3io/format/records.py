"""What a format makes of some objects: where their records lie, and what a batch of them is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from .. import _C
from ..errors import ConfigError
from ..store.stores import store_of
from .layout import RecordLayout
from .objects import Column, Objects, Shard

if TYPE_CHECKING:
    from typing_extensions import Self


class FieldInfo(NamedTuple):
    """One tensor of a batch, as a data set describes it.

    Attributes:
        name: Key in the batch's dict; empty where the batch is this tensor.
        dtype: Of the tensor.
        shape: Of one record; None: an axis that may have any length.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int | None, ...]


class BufferBytes(NamedTuple):
    """Of a buffer for a batch.

    Attributes:
        wanted: What it should have.
        least: What it must have where memory is short.
    """

    wanted: int
    least: int


class Records(ABC):
    """All that a data set needs to know of its data. Immutable, and no I/O but in ``make_form``.

    A format is a subclass, and a function that makes one of what the user named.

    Attributes:
        objects: In the order of their records.
        kind_advice: How to make a Mix, whose parts are of one subclass.
    """

    noun = "record"
    kind_advice = (
        "its parts are RecordDatasets, or SampleDatasets, or TokenDatasets: write some of them "
        "anew, by pack"
    )
    objects: Objects

    @property
    def num_records(self) -> int:
        return self.objects.total_records

    @property
    def total_bytes(self) -> int:
        return self.objects.total_bytes

    @property
    def unused_bytes(self) -> int:
        """At the ends of objects, too few for a record."""
        return 0

    @property
    @abstractmethod
    def record_bytes(self) -> int:
        """Of a record; where they differ, on average."""

    @property
    @abstractmethod
    def spacing_bytes(self) -> int:
        """From the start of one record to the next one's, on average; at least 1."""

    @property
    def block_bytes(self) -> int:
        """Of a block of ``shuffle="block"`` where nothing else is said; see Store."""
        return store_of(self.objects.path(0)).block_bytes

    @property
    @abstractmethod
    def fields(self) -> Sequence[FieldInfo]:
        """What a batch consists of."""

    @property
    @abstractmethod
    def described(self) -> str:
        """How large a record is, for people: "3073 bytes"."""

    @abstractmethod
    def identity(self) -> list[Any]:
        """For JSON: what tells these records from other ones in objects of these names and sizes.
        In which form they are delivered does not matter."""

    def contents(self) -> list[Any]:
        """For JSON: what tells the bytes of these records from others in objects of these sizes,
        where the format knows it."""
        return []

    @abstractmethod
    def make_form(self, alignment: int, with_record_numbers: bool) -> _C.BatchForm:
        """How C++ finds them and makes batches of them.

        Args:
            alignment: Of the blocks that reads take, in bytes; 1: they take no more than they need.
        """

    @abstractmethod
    def joined(self, others: Sequence[Self]) -> Self:
        """These, then those of the others, whose numbers go on.

        Raises:
            Mismatch: Batches of them would not be of one kind.
        """

    def buffer_bytes(self, form: _C.BatchForm, order: _C.RecordOrder, count: int) -> BufferBytes:
        """What a buffer should have for batches of ``count`` records in this order."""
        most = form.most_bytes(count)
        return BufferBytes(most, most)

    def buffer_problem(self, buffer_size: int, needed: BufferBytes, count: int) -> str:
        """Why buffers that somebody wants cannot be, or ""."""
        if buffer_size >= needed.wanted:
            return ""
        return (
            f"BufferPoolConfig.buffer_size is {buffer_size} bytes, but a batch of {count} "
            f"{self.noun}s needs {needed.wanted} ({self.noun}s, alignment and conversions "
            "included); raise it or lower batch_size"
        )

    @property
    def has_rows(self) -> bool:
        """Whether a batch has a row for each record, in all that it consists of."""
        return True

    @property
    def has_checksums(self) -> Column:
        """Whether each record of an object is compared with one, when it has come: bool [n]."""
        return np.zeros(len(self.objects), bool)

    def finished(self, batch: Any, with_record_numbers: bool) -> Any:
        """What the loop gets of what C++ made: a batch, or that and the numbers of its records."""
        return batch

    @property
    def finishes(self) -> bool:
        """Whether ``finished`` does anything."""
        return type(self).finished is not Records.finished


class Mismatch(ConfigError):
    """Records that do not go together.

    Attributes:
        part: Which of the others does not fit.
        advice: What makes it fit.
    """

    def __init__(self, part: int, advice: str) -> None:
        super().__init__(f"records of part {part} are of another layout; {advice}")
        self.part = part
        self.advice = advice


class FixedRecords(Records):
    """Records of one size at equal distances.

    Attributes:
        layout: Of each of them.
    """

    def __init__(self, shards: Iterable[Shard], layout: RecordLayout) -> None:
        self.objects = Objects.of(shards)
        self.layout = layout

    @property
    def unused_bytes(self) -> int:
        # Padding up to the stride belongs to a record, also to the last one.
        objects, stride = self.objects, self.layout.stride_bytes
        last = max(self.layout.record_bytes, stride)
        covered = np.where(objects.num_records, (objects.num_records - 1) * stride + last, 0)
        left = objects.versions["size_bytes"] - objects.header_bytes - covered
        return int(left.clip(min=0).sum())

    @property
    def record_bytes(self) -> int:
        return self.layout.record_bytes

    @property
    def spacing_bytes(self) -> int:
        return self.layout.stride_bytes

    @property
    def fields(self) -> Sequence[FieldInfo]:
        return [
            FieldInfo(field.name, field.output_dtype, field.shape) for field in self.layout.fields
        ]

    @property
    def described(self) -> str:
        return f"{self.layout.record_bytes} bytes"

    def identity(self) -> list[Any]:
        counts = (self.objects.header_bytes.tolist(), self.objects.num_records.tolist())
        return [*self.layout.identity(), list(zip(*counts, strict=True))]

    def make_form(self, alignment: int, with_record_numbers: bool) -> _C.BatchForm:
        return _C.FixedForm(
            objects=self.objects.to_core(),
            header_bytes=self.objects.header_bytes.tolist(),
            num_records=self.objects.num_records.tolist(),
            fields=[field.to_core() for field in self.layout.fields],
            record_bytes=self.layout.record_bytes,
            record_stride=self.layout.stride_bytes,
            alignment=alignment,
            with_record_numbers=with_record_numbers,
        )

    def joined(self, others: Sequence[Self]) -> Self:
        for number, other in enumerate(others, 1):
            if other.layout != self.layout:
                raise Mismatch(
                    number,
                    "as_dtype= makes other types equal, RecordWriter writes other shapes anew",
                )
        objects = Objects.joined([one.objects for one in (self, *others)])
        return type(self)(objects, self.layout)
