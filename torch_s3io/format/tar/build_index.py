"""Makes the index of tar archives."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ... import _C
from ...index.column_file import Column
from ...index.showing import showing
from ...store.access import Reading
from ...store.store import Found, Inspected
from ...store.stores import store_of
from ...warning import warn
from ...wording import count_of, printable
from .shard_members import (
    Extensions,
    ShardMembers,
    Unpacked,
    columns_of_members,
    columns_of_samples,
    joined_texts,
)
from .tar_index import TarIndex
from .tar_members import group_members, scan_tars

_READ_TIMEOUT_S = 60.0  # longest wait for a header; no data set is there yet to say another
_AT_ONCE = 256  # archives of which a thread has all names in memory
_MOST_THREADS = 16
_MOST_READS = 128  # in flight, of all threads; each has 1 MiB of memory
_DEPTH = 32  # of a thread
_SHOW_EVERY_S = 0.1


class _Archive(NamedTuple):
    file: Found
    info: Inspected


class _Scanned(NamedTuple):
    members: ShardMembers
    has_end: bool


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
    found: dict[int, ShardMembers] = {}
    if old is not None:
        known = dict(zip(old.names, enumerate(old.columns["versions"].tolist()), strict=True))
        unpacked = Unpacked(old)
        for number, (name, info) in enumerate(zip(names, infos, strict=True)):
            row, version = known.get(name, (0, None))
            if version == version_of(info):
                found[number] = unpacked.members(row)
    missing = [number for number in range(len(files)) if number not in found]
    scanned = _scanned([_Archive(files[number], infos[number]) for number in missing])
    endless = []
    for number, one in zip(missing, scanned, strict=True):
        found[number] = one.members
        if not one.has_end:
            endless.append(files[number].path)
    if endless:
        warn(
            f"{count_of(len(endless), 'archive')} without the zeros that end one, the first being "
            f"{printable(endless[0])}: cut off, or written by a program that did not close it. "
            "Samples may be missing at its end: compare it with its source"
        )
    every = [found[number] for number in range(len(files))]
    extensions = Extensions()
    numbers = [
        extensions.numbers(file.path, members.extensions)
        for file, members in zip(files, every, strict=True)
    ]
    texts, ends = joined_texts(names)
    versions = [version_of(info) for info in infos]
    return {"folder": folder}, {
        "names": texts,
        "name_ends": ends,
        "versions": np.array(versions, np.int64).reshape(-1, 2),
        **columns_of_samples(every),
        **columns_of_members(every, numbers, extensions),
    }


def version_of(info: Inspected) -> list[int]:
    """What tells that an archive has changed, on any machine that sees its file system."""
    return [info.size_bytes, info.identity.modified_ns]


class _Stopped(Exception):
    """Another thread has failed, or the user gave up."""


def _scanned(archives: Sequence[_Archive]) -> list[_Scanned]:
    """What is in these archives, by a thread for each processor: to look at headers, and to compare
    names, takes more time than to read them where members are small."""
    threads = min(len(os.sched_getaffinity(0)), _MOST_THREADS, max(len(archives), 1))
    size = min(_AT_ONCE, -(-len(archives) // threads))
    parts = [archives[begin : begin + size] for begin in range(0, len(archives), size or 1)]
    passed = [0] * len(parts)  # bytes
    gives_up = threading.Event()

    def note(part: int, _archives: int, passed_bytes: int) -> None:
        passed[part] = passed_bytes
        if gives_up.is_set():
            raise _Stopped

    total = sum(one.info.size_bytes for one in archives)
    text = f"finding samples in {count_of(len(archives), 'archive')}"
    with showing(text, "B") as show, ThreadPoolExecutor(threads, "torch_s3io-index") as pool:
        try:
            depth = min(_DEPTH, _MOST_READS // threads)
            work = [pool.submit(_scan, one, depth, partial(note, n)) for n, one in enumerate(parts)]
            running: set[Future[list[_Scanned]]] = set(work)
            while running:
                done, running = wait(running, _SHOW_EVERY_S, FIRST_EXCEPTION)
                for one in done:
                    one.result()
                show(sum(passed), total)
        except BaseException:
            gives_up.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [scanned for part in work for scanned in part.result()]


def _scan(
    archives: Sequence[_Archive], depth: int, note: Callable[[int, int], None]
) -> list[_Scanned]:
    paths = [one.file.path for one in archives]
    scan = scan_tars(
        _core_store(archives),
        paths,
        [one.info.identity for one in archives],
        depth=depth,
        read_timeout_s=_READ_TIMEOUT_S,
        progress=note,
    )
    left, found = scan.members[::-1], []
    del scan
    for path in paths:
        members = left.pop()  # so that its names are not kept
        one = group_members(path, members)
        columns = (one.fields, one.samples, one.starts, one.lengths, one.keys, one.key_ends)
        found.append(_Scanned(ShardMembers.of(one.extensions, *columns), members.has_end))
        note(0, sum(one.info.size_bytes for one in archives))
    return found


def _core_store(archives: Sequence[_Archive]) -> _C.Store:
    infos = [one.info for one in archives]
    reading = Reading(
        path=lambda number: archives[number].file.path,
        identity=lambda number: infos[number].identity,
        alignments=np.array([info.direct_alignment for info in infos], np.int64),
        devices=np.array([info.identity.device for info in infos], np.uint64),
        total_bytes=sum(info.size_bytes for info in infos),
        record_bytes=512,
        spacing_bytes=512,
        neighbours=1,
        window_records=1,
        window_block_records=1,
        direct="auto",
        engine="auto",
        has_checksums=np.zeros(len(infos), bool),
        keeps_cached=False,
        faults=None,
        is_told=True,
    )
    return store_of(archives[0].file.path).access(reading).make_store()
