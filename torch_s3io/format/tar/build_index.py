"""Makes the index of tar archives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ... import _C
from ...index.column_file import Column
from ...index.showing import Show, showing
from ...store.access import Reading
from ...store.store import Found, Inspected
from ...store.stores import store_of
from ...warning import warn
from ...wording import count_of, printable
from .tar_index import TarIndex
from .tar_members import TarSamples, group_members, scan_tars

_DENSE_SHARE = 8  # one of so many samples has an extension that has a place in each
_MOST_DENSE = 256
_AT_ONCE = 256  # archives of which all names are in memory


@dataclass(frozen=True)
class _Members:
    """What the index keeps of one archive; extensions as numbers. See TarSamples."""

    samples: Column
    extensions: Column
    starts: Column
    lengths: Column
    keys: Column
    key_ends: Column


class _Extensions:
    """Numbers all extensions of the archives, as they come."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def numbers(self, extensions: Sequence[str]) -> Column:
        numbers = self._numbers
        return np.array([numbers.setdefault(one, len(numbers)) for one in extensions], np.int64)

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)


def build_index(
    files: Sequence[Found],
    infos: Sequence[Inspected],
    names: Sequence[str],
    folder: str,
    old: TarIndex | None,
) -> tuple[Mapping[str, Any], Mapping[str, Column]]:
    """Head and columns of the index. Archives that have not changed since ``old`` are not read.

    Args:
        names: Of the files, relative to their folder, or absolute if there is none.

    Raises:
        DataError, FileChangedError, NotFoundError, AccessError, ReadError: As ``scan_tars`` and
            ``group_members``.
    """
    extensions = _Extensions()
    found: dict[int, _Members] = {}
    if old is not None:
        known = dict(zip(old.names, enumerate(old.columns["versions"].tolist()), strict=True))
        unpacked = _Unpacked(old)
        for number, (name, info) in enumerate(zip(names, infos, strict=True)):
            row, version = known.get(name, (0, None))
            if version == version_of(info):
                found[number] = unpacked.members(row, extensions)
    missing = [number for number in range(len(files)) if number not in found]
    endless: list[str] = []
    with showing(f"finding samples in {count_of(len(missing), 'archive')}", "archive") as show:
        for begin in range(0, len(missing), _AT_ONCE):
            numbers = missing[begin : begin + _AT_ONCE]
            scan = scan_tars(
                _core_store([files[one] for one in numbers], [infos[one] for one in numbers]),
                [files[one].path for one in numbers],
                [infos[one].identity for one in numbers],
                read_timeout_s=60.0,
                progress=partial(_show, show, begin, len(missing)),
            )
            for number, members in zip(numbers, scan.members, strict=True):
                if not members.has_end:
                    endless.append(files[number].path)
                samples = group_members(files[number].path, members)
                found[number] = _members_of(samples, extensions)
            del scan
    if endless:
        warn(
            f"{count_of(len(endless), 'archive')} without the zeros that end one, the first being "
            f"{printable(endless[0])}: cut off, or written by a program that did not close it. "
            "Samples may be missing at its end: compare it with its source"
        )
    every = [found[number] for number in range(len(files))]
    head = {"folder": folder}
    return head, {**_of_shards(names, infos, every), **_of_members(every, extensions)}


def _show(show: Show, before: int, total: int, archives: int, _bytes: int) -> None:
    show(before + archives, total)


def version_of(info: Inspected) -> list[int]:
    """What tells that an archive has changed, on any machine that sees its file system."""
    return [info.size_bytes, info.identity.modified_ns]


def _core_store(files: Sequence[Found], infos: Sequence[Inspected]) -> _C.Store:
    sizes = [info.size_bytes for info in infos]
    reading = Reading(
        path=lambda number: files[number].path,
        alignments=np.array([info.direct_alignment for info in infos], np.int64),
        devices=np.array([info.identity.device for info in infos], np.uint64),
        total_bytes=sum(sizes),
        record_bytes=512,
        spacing_bytes=512,
        neighbours=1,
        window_records=1,
        window_block_records=1,
        direct="auto",
        engine="auto",
        keeps_cached=False,
        faults=None,
        is_told=True,
    )
    return store_of(files[0].path).access(reading).make_store()


def _members_of(samples: TarSamples, extensions: _Extensions) -> _Members:
    numbers = extensions.numbers(samples.extensions)
    return _Members(
        samples.samples,
        numbers[samples.fields],
        samples.starts.astype(np.uint64),
        samples.lengths.astype(np.uint64),
        samples.keys.copy(),
        samples.key_ends.copy(),
    )


class _Unpacked:
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

    def members(self, shard: int, extensions: _Extensions) -> _Members:
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
        there, places = np.unique(np.concatenate(numbers), return_inverse=True)
        names = [index.extensions[one] for one in there.tolist()]
        ends = index.columns["key_ends"][rows.start : rows.stop].astype(np.int64)
        first = int(index.columns["key_ends"][rows.start - 1]) if rows.start else 0
        return _Members(
            np.concatenate(samples),
            extensions.numbers(names)[places],
            np.concatenate(starts),
            np.concatenate(lengths),
            index.columns["keys"][first : int(ends[-1]) if len(ends) else first],
            ends - first,
        )


def _of_shards(
    names: Sequence[str], infos: Sequence[Inspected], members: Sequence[_Members]
) -> dict[str, Column]:
    texts, ends = _joined_texts(names)
    spans = np.zeros((len(members), 2), np.uint64)
    for number, one in enumerate(members):
        if len(one.starts):
            spans[number] = one.starts.min(), (one.starts + one.lengths).max()
    return {
        "names": texts,
        "name_ends": ends,
        "versions": np.array([version_of(info) for info in infos], np.int64).reshape(-1, 2),
        "shard_ends": np.cumsum([len(one.key_ends) for one in members], dtype=np.uint64),
        "begins": spans[:, 0],
        "stops": spans[:, 1],
        "keys": np.concatenate([one.keys for one in members]),
        "key_ends": _shifted([one.key_ends for one in members], [len(one.keys) for one in members]),
    }


def _of_members(members: Sequence[_Members], extensions: _Extensions) -> dict[str, Column]:
    """By extension: those of the frequent ones in a place for each sample, the others in a list."""
    counts_of_samples = [len(one.key_ends) for one in members]
    num_samples = sum(counts_of_samples)
    samples = _shifted([one.samples for one in members], counts_of_samples)
    numbers = np.concatenate([one.extensions for one in members])
    order = np.argsort(numbers, kind="stable")  # so the samples of each extension ascend
    samples = samples[order]
    starts = np.concatenate([one.starts for one in members])[order]
    lengths = np.concatenate([one.lengths for one in members])[order]
    texts, ends = _joined_texts(extensions)
    counts = np.bincount(numbers, minlength=len(ends))
    stops = np.cumsum(counts)
    frequent = np.argsort(-counts, kind="stable")[:_MOST_DENSE]
    dense = np.sort(frequent[counts[frequent] * _DENSE_SHARE >= num_samples])
    is_wide = len(lengths) and int(lengths.max()) >> 32
    all_starts = np.zeros((len(dense), num_samples), np.uint64)
    all_lengths = np.zeros((len(dense), num_samples), np.uint64 if is_wide else np.uint32)
    is_sparse = np.ones(len(samples), bool)
    for place, extension in enumerate(dense.tolist()):
        part = slice(stops[extension] - counts[extension], stops[extension])
        all_starts[place, samples[part]] = starts[part]
        all_lengths[place, samples[part]] = lengths[part]
        is_sparse[part] = False
    is_dense = np.isin(np.arange(len(counts)), dense)
    total, largest = np.zeros((2, len(counts)), np.uint64)
    if len(counts):  # each has a member at least
        # Links to one file count more than there is: as floats they do not wrap.
        sums = np.add.reduceat(lengths.astype(np.float64), stops - counts)
        total = np.minimum(sums, 2.0**60).astype(np.uint64)
        largest = np.maximum.reduceat(lengths, stops - counts)
    return {
        "extensions": texts,
        "extension_ends": ends,
        "counts": counts.astype(np.uint64),
        "total_bytes": total,
        "largest_bytes": largest,
        "dense": dense.astype(np.uint64),
        "starts": all_starts,
        "lengths": all_lengths,
        "sparse_ends": np.cumsum(np.where(is_dense, 0, counts)).astype(np.uint64),
        "sparse_samples": samples[is_sparse],
        "sparse_starts": starts[is_sparse],
        "sparse_lengths": lengths[is_sparse],
    }


def _joined_texts(texts: Any) -> tuple[Column, Column]:
    parts = [text.encode("utf-8", "surrogateescape") for text in texts]
    return np.frombuffer(b"".join(parts), np.uint8), np.cumsum(
        [len(part) for part in parts], dtype=np.uint64
    )


def _shifted(parts: Sequence[Column], counts: Sequence[int]) -> Column:
    """Numbers of parts, each counted from the first one of all parts: uint64."""
    firsts = np.cumsum([0, *counts[:-1]], dtype=np.int64).tolist()
    shifted = [part.astype(np.int64) + first for part, first in zip(parts, firsts, strict=True)]
    return np.concatenate(shifted).astype(np.uint64)
