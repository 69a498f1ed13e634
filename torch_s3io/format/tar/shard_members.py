"""What the index of tar archives keeps of each of them, and the columns that this makes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import DataError
from ...index.column_file import Column
from ...wording import printable
from .tar_index import MOST_EXTENSIONS, TarIndex

_DENSE_SHARE = 8  # one of so many samples has an extension that has a place in each
_MOST_DENSE = 256


@dataclass(frozen=True)
class ShardMembers:
    """The m members of the n samples of an archive, by extension. Those of each ascend by sample.

    Attributes:
        extensions: That there are, sorted.
        ends: Members up to the last one of each extension.
        samples: Of each member, the number of its sample: uint32 [m].
        starts: Of each member, its first byte in the archive: uint64 [m].
        lengths: Of each member, its bytes: uint32 or uint64 [m].
        keys: Of all samples, one after the other: uint8.
        key_ends: Where the key of each sample ends: int64 [n].
    """

    extensions: tuple[str, ...]
    ends: tuple[int, ...]
    samples: Column
    starts: Column
    lengths: Column
    keys: Column
    key_ends: Column

    @classmethod
    def of(
        cls,
        extensions: tuple[str, ...],
        numbers: Column,
        samples: Column,
        starts: Column,
        lengths: Column,
        keys: Column,
        key_ends: Column,
    ) -> ShardMembers:
        """Of members that ascend by sample; ``numbers`` says the extension of each."""
        order = np.argsort(numbers.astype(np.uint16), kind="stable")
        counts = np.bincount(numbers, minlength=len(extensions))
        return cls(
            extensions,
            tuple(np.cumsum(counts).tolist()),
            samples.astype(np.uint32)[order],
            starts.astype(np.uint64)[order],
            lengths.astype(_width_of(lengths))[order],
            keys.copy(),
            key_ends.copy(),
        )

    @property
    def begins(self) -> list[int]:
        """The first member of each extension."""
        return [0, *self.ends][: len(self.ends)]


class Extensions:
    """Numbers all extensions of the archives, as they come."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def numbers(self, path: str, extensions: Sequence[str]) -> list[int]:
        """Raises DataError, with the path of the archive, where there are too many."""
        every = self._numbers
        numbers = [every.setdefault(one, len(every)) for one in extensions]
        if len(every) > MOST_EXTENSIONS:
            first, *_, last = every
            raise DataError(
                f"{printable(path)}: with those of the archives before it there are more than "
                f"{MOST_EXTENSIONS} fields, such as '{printable(first)}' and '{printable(last)}': "
                "a field begins behind the first dot of a file's name; write the archives anew "
                "with names that have no dot before that"
            )
        return numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)


class Unpacked:
    """The members of an index, by shard."""

    def __init__(self, index: TarIndex) -> None:
        self._index = index
        columns = index.columns
        ends = columns["sparse_ends"].astype(np.int64)
        counts = ends - np.concatenate([[0], ends])[: len(ends)]
        order = np.argsort(columns["sparse_samples"], kind="stable")
        self._samples = columns["sparse_samples"][order].astype(np.int64)
        self._extensions = np.repeat(np.arange(len(counts)), counts)[order]
        self._starts = columns["sparse_starts"][order]
        self._lengths = columns["sparse_lengths"][order]
        by_name = sorted(range(len(index.extensions)), key=index.extensions.__getitem__)
        self._rank = np.argsort(by_name)  # of each extension, by its name
        self._names = [index.extensions[one] for one in by_name]

    def members(self, shard: int) -> ShardMembers:
        index, rows = self._index, self._index.rows(shard)
        part = slice(*np.searchsorted(self._samples, (rows.start, rows.stop)).tolist())
        samples, numbers = [self._samples[part] - rows.start], [self._extensions[part]]
        starts, lengths = [self._starts[part]], [self._lengths[part]]
        for extension in index.columns["dense"].tolist():
            begins, sizes = index.members(extension, shard)
            [there] = np.nonzero(begins)
            samples.append(there)
            numbers.append(np.full(len(there), extension, np.int64))
            starts.append(begins[there])
            lengths.append(sizes[there].astype(np.uint64))
        ranks, places = np.unique(self._rank[np.concatenate(numbers)], return_inverse=True)
        ends = index.columns["key_ends"][rows.start : rows.stop].astype(np.int64)
        first = int(index.columns["key_ends"][rows.start - 1]) if rows.start else 0
        return ShardMembers.of(
            tuple(self._names[one] for one in ranks.tolist()),
            places,
            np.concatenate(samples),
            np.concatenate(starts),
            np.concatenate(lengths),
            index.columns["keys"][first : int(ends[-1]) if len(ends) else first],
            ends - first,
        )


def columns_of_samples(shards: Sequence[ShardMembers]) -> dict[str, Column]:
    """Where the samples of each archive are, and their keys."""
    spans = np.zeros((len(shards), 2), np.uint64)
    for number, one in enumerate(shards):
        if len(one.starts):
            spans[number] = one.starts.min(), (one.starts + one.lengths).max()
    return {
        "shard_ends": np.cumsum([len(one.key_ends) for one in shards], dtype=np.uint64),
        "begins": spans[:, 0],
        "stops": spans[:, 1],
        "keys": np.concatenate([one.keys for one in shards]),
        "key_ends": _shifted([one.key_ends for one in shards], [len(one.keys) for one in shards]),
    }


def columns_of_members(
    shards: Sequence[ShardMembers], numbers: Sequence[list[int]], extensions: Extensions
) -> dict[str, Column]:
    """By extension: those of the frequent ones in a place for each sample, the others in a list.

    Args:
        numbers: Of each archive, those of its extensions.
    """
    counts, largest = np.zeros(len(extensions), np.int64), np.zeros(len(extensions), np.uint64)
    sums = np.zeros(len(extensions))  # links to one file count it again: floats do not wrap
    for one, of in zip(shards, numbers, strict=True):
        if of:  # each has a member at least
            counts[of] += np.diff([0, *one.ends])
            sums[of] += np.add.reduceat(one.lengths, one.begins, dtype=np.float64)
            largest[of] = np.maximum(largest[of], np.maximum.reduceat(one.lengths, one.begins))
    num_samples = sum(len(one.key_ends) for one in shards)
    frequent = np.argsort(-counts, kind="stable")[:_MOST_DENSE]
    dense = np.sort(frequent[counts[frequent] * _DENSE_SHARE >= num_samples])
    is_dense = np.isin(np.arange(len(counts)), dense)
    texts, ends = joined_texts(extensions)
    starts, lengths, rare = _placed(shards, numbers, dense, num_samples, _width_of(largest))
    return {
        "extensions": texts,
        "extension_ends": ends,
        "counts": counts.astype(np.uint64),
        "total_bytes": np.minimum(sums, 2.0**60).astype(np.uint64),
        "largest_bytes": largest,
        "dense": dense.astype(np.uint64),
        "starts": starts,
        "lengths": lengths,
        "sparse_ends": np.cumsum(np.where(is_dense, 0, counts)).astype(np.uint64),
        **rare,
    }


def _placed(
    shards: Sequence[ShardMembers],
    numbers: Sequence[list[int]],
    dense: Column,
    num_samples: int,
    width: Any,
) -> tuple[Column, Column, dict[str, Column]]:
    """Starts and lengths of the frequent extensions; and the columns of the others."""
    row_of = {number: row for row, number in enumerate(dense.tolist())}
    starts = np.zeros((len(dense), num_samples), np.uint64)
    lengths: Column = np.zeros((len(dense), num_samples), width)
    sparse: list[tuple[int, Column, Column, Column]] = []
    first = 0
    for one, of in zip(shards, numbers, strict=True):
        for number, begin, end in zip(of, one.begins, one.ends, strict=True):
            samples = one.samples[begin:end].astype(np.int64) + first
            if number in row_of:
                starts[row_of[number], samples] = one.starts[begin:end]
                lengths[row_of[number], samples] = one.lengths[begin:end]
            else:
                sparse.append((number, samples, one.starts[begin:end], one.lengths[begin:end]))
        first += len(one.key_ends)
    sparse.sort(key=lambda part: part[0])  # so the samples of each extension ascend
    listed = {}
    for place, name in enumerate(("sparse_samples", "sparse_starts", "sparse_lengths"), 1):
        parts = [part[place] for part in sparse]
        listed[name] = np.concatenate([np.empty(0, np.int64), *parts]).astype(np.uint64)
    return starts, lengths, listed


def joined_texts(texts: Iterable[str]) -> tuple[Column, Column]:
    """As bytes, one after the other: uint8; and where each one ends: uint64."""
    parts = [text.encode("utf-8", "surrogateescape") for text in texts]
    return np.frombuffer(b"".join(parts), np.uint8), np.cumsum(
        [len(part) for part in parts], dtype=np.uint64
    )


def _width_of(lengths: Column) -> Any:
    return np.uint64 if len(lengths) and int(lengths.max()) >> 32 else np.uint32


def _shifted(parts: Sequence[Column], counts: Sequence[int]) -> Column:
    """Numbers of parts, each counted from the first one of all parts: uint64."""
    firsts = np.cumsum([0, *counts[:-1]], dtype=np.int64).tolist()
    shifted = [part.astype(np.int64) + first for part, first in zip(parts, firsts, strict=True)]
    return np.concatenate(shifted).astype(np.uint64)
