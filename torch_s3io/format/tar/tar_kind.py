"""The index of tar archives, for the commands."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from ...errors import AccessError, ConfigError, NotFoundError
from ...index.column_file import ColumnFile
from ...index.kind import IndexKind
from ...index.place import Where, path_below
from ...store.stores import store_of
from ...wording import listed, printable, size_text
from ..files import inspect, inspect_again
from ..paths import find_files
from .build_index import version_of
from .tar_format import expanded, index_of, looks_like_tars
from .tar_index import TarIndex

_MOST_SHOWN = 12


def _takes(paths: Sequence[str]) -> bool:
    """Archives, patterns of them, and folders that have some."""
    return all(looks_like_tars(path) or _has_tars(path) for path in paths)


def _has_tars(path: str) -> bool:
    store = store_of(path)
    if not store.is_folder(path):
        return False
    return any(file.endswith(".tar") for file in store.below(path))


def _make(paths: Sequence[str], where: Where, fields: Sequence[str]) -> ColumnFile:
    files = find_files(expanded(paths), "name", ending=".tar")
    return index_of(files, inspect(files), where)[0].file


def _is_current(file: ColumnFile) -> bool:
    index = TarIndex(file)
    folder = os.path.dirname(file.path)
    if not (index.names and os.path.lexists(path_below(folder, index.names[0]))):
        folder = str(file.head.get("folder"))
    paths = [path_below(folder, name) for name in index.names]
    try:
        infos = inspect_again(paths)
    except (NotFoundError, AccessError, ConfigError):
        return False
    versions: list[list[int]] = index.columns["versions"].tolist()
    return [version_of(info) for info in infos] == versions


def _describe(file: ColumnFile) -> list[tuple[str, str]]:
    index = TarIndex(file)
    counts = index.columns["counts"].astype(np.int64)
    frequent = np.argsort(-counts, kind="stable")
    fields = [f"{printable(index.extensions[one])} ({counts[one]})" for one in frequent.tolist()]
    size = int(index.columns["versions"][:, 0].sum())
    return [
        ("archives", f"{len(index.names)}, {size_text(size)}"),
        ("samples", str(index.num_samples)),
        ("fields", listed(fields, most=_MOST_SHOWN)),
    ]


TAR_KIND = IndexKind(
    "tar",
    "tar archives",
    takes=_takes,
    make=_make,
    is_current=_is_current,
    describe=_describe,
)
