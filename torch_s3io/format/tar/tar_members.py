"""The files in tar archives, and the samples that they make up, as columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ... import _C
from ...errors import DataError
from ...store.store import Identity
from ...wording import one_line, printable
from .tar_index import MOST_EXTENSIONS

Column: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class TarScan:
    """What was found in archives.

    Attributes:
        members: Of each archive, in the order of the paths.
        reads: How many it took.
        read_bytes: Bytes that were read.
    """

    members: list[_C.TarMembers]
    reads: int
    read_bytes: int


def scan_tars(
    store: _C.Store,
    paths: Sequence[str],
    versions: Sequence[Identity] | None = None,
    *,
    depth: int = 32,
    read_timeout_s: float = 30.0,
    progress: Callable[[int, int], None] | None = None,
) -> TarScan:
    """The regular files in tar archives: ``offsets`` and ``sizes`` in bytes (int64 [n]), ``names``
    (uint8), and where each name ends in these, ``name_ends`` (int64 [n]). All are views.

    Args:
        versions: Of each archive; None: they are read as they are now.
        depth: Archives that are read at once.
        read_timeout_s: The longest wait in which nothing comes back.
        progress: Is called every few milliseconds with the number of archives that are done, and
            the bytes that are passed of all of them. What it raises ends the scan.

    Raises:
        DataError: One is no tar archive, is damaged, cut off or compressed, or has a symbolic
            link, a sparse file or a hard link to nothing in it.
        FileChangedError: One has another version, or was changed meanwhile.
        NotFoundError, AccessError, ReadError, ReadTimeoutError: One cannot be read.
    """
    members, reads, read_bytes = _C.scan_tars(
        store=store,
        paths=list(paths),
        versions=None if versions is None else [one.to_core() for one in versions],
        depth=depth,
        read_timeout_s=read_timeout_s,
        progress=progress,
    )
    return TarScan(members, reads, read_bytes)


@dataclass(frozen=True)
class TarSamples:
    """The samples of an archive, and the members that they consist of: m members, in the order of
    the archive.

    Attributes:
        extensions: All that there are, in lower case, sorted.
        samples: Of each member, the number of its sample: int64 [m].
        fields: Of each member, the place of its extension in ``extensions``: int64 [m].
        starts: Of each member, its first byte in the archive: int64 [m].
        lengths: Of each member, its bytes: int64 [m].
        keys: Of all samples, one after the other: uint8.
        key_ends: Where the key of each sample ends: int64 [n].
    """

    extensions: tuple[str, ...]
    samples: Column
    fields: Column
    starts: Column
    lengths: Column
    keys: np.ndarray[Any, np.dtype[np.uint8]]
    key_ends: Column

    def __len__(self) -> int:
        return len(self.key_ends)


def group_members(path: str, members: _C.TarMembers) -> TarSamples:
    """Samples by webdataset's rule: members that follow one another and have one name up to the
    first dot of the base name. The rest of it, in lower case, is the field.

    Args:
        path: Of the archive, for errors.

    Raises:
        DataError: A sample has a field twice, the members of a key do not follow one another, or
            there are too many fields.
    """
    names = members.group(path=path, most_extensions=MOST_EXTENSIONS)
    written = [one.decode("utf-8", "surrogateescape").lower() for one in names.extensions]
    extensions = tuple(sorted(set(written)))
    number_of = {extension: number for number, extension in enumerate(extensions)}
    rows = np.flatnonzero(names.sample_of >= 0)
    samples = names.sample_of[rows]
    fields = np.array([number_of[one] for one in written], np.int64)[names.extension_of[rows]]
    _refuse_twins(path, members, rows, samples * len(extensions) + fields)
    return TarSamples(
        extensions,
        samples,
        fields,
        members.offsets[rows],
        members.sizes[rows],
        names.keys,
        names.key_ends,
    )


def _refuse_twins(path: str, members: _C.TarMembers, rows: Column, codes: Column) -> None:
    """Raises where two members, each with a code for sample and field, have the same one."""
    order = np.argsort(codes, kind="stable")
    again = np.flatnonzero(codes[order[1:]] == codes[order[:-1]])
    if not len(again):
        return
    first, second = (int(rows[order[again[0] + step]]) for step in (0, 1))
    raise DataError(
        f"{printable(path)}: a sample has a field twice: {_described(members, first)} and "
        f"{_described(members, second)}; write the archive anew with one of them"
    )


def _described(members: _C.TarMembers, member: int) -> str:
    begin = 0 if member == 0 else members.name_ends[member - 1]
    name = members.names[begin : members.name_ends[member]].tobytes()
    text = one_line(name.decode("utf-8", "surrogateescape"))
    return f"'{text}' at byte {members.offsets[member]}"
