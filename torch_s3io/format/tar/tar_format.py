"""Tar archives as a format of samples."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ...config import PATH_TYPES, check_choice, path_text
from ...errors import ConfigError, DataError
from ...index.builder import indexed
from ...index.column_file import ColumnFile
from ...index.place import Where, folder_of, names_below
from ...store.store import FileOrder, Found, Inspected
from ...store.stores import store_of
from ...warning import warn
from ...wording import count_of, did_you_mean, listed, printable, short
from ..braces import expand_braces
from ..files import inspect
from ..objects import shard_of
from ..paths import Paths, find_files
from ..sample_format import SampleFormat, Samples
from ..sample_layout import SampleField, SampleLayout
from ..sample_records import SampleSizes, TablePlace
from .build_index import build_index, version_of
from .tar_index import RECIPE, TarIndex
from .tar_samples import Missing, TarField, TarSampleTables, is_field

_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
_OF_ALL = ("total_bytes", "largest_bytes")
_MOST = 1 << 60  # bytes, however often links name them
_MOST_FOUND = 64  # fields that are taken where none are named


def open_tars(
    paths: Paths,
    order: FileOrder,
    fields: Any = None,
    missing: Missing = "error",
    where: Where = True,
) -> Samples:
    """What ``SampleDataset.from_tar`` documents.

    Raises:
        ConfigError: Words or fields that cannot be.
        DataError: An archive is damaged, compressed, or not grouped to samples; a field is missing.
        NotFoundError, AccessError, ReadError, FileChangedError: One cannot be read.
    """
    check_choice("missing", missing, Missing)
    names = None if fields is None else _checked_fields(fields)
    files = find_files(expanded(paths), order, ending=".tar")
    infos = inspect(files)
    index, shards = index_of(files, infos, where)
    if index.num_samples == 0:
        raise DataError(
            f"{printable(files[0].path)}: there are no samples in {count_of(len(files), 'archive')}"
            ": no file in them has a name and an extension, such as 7.jpg"
        )
    if names is None:
        wanted = _found_fields(index, missing)
    else:
        wanted = _fields_of(index, names, missing, files)
    tables = TarSampleTables(index, shards, wanted, skips=missing == "skip")
    tables.refuse_unnamed([file.path for file in files])
    if not tables.leaves_out:
        tables.refuse_missing([file.path for file in files])
    sizes = None  # unless the index says those of each sample once
    if not tables.leaves_out and len(set(shards)) == len(shards):
        sizes = [_sizes(index, wanted)]
    objects = [
        shard_of(file, info, 0, tables.count(number))
        for number, (file, info) in enumerate(zip(files, infos, strict=True))
    ]
    places = [
        TablePlace(partial(tables.table, number), one.size_bytes)
        for number, one in enumerate(infos)
    ]
    return Samples(
        _layout(wanted),
        objects,
        places,
        sizes=sizes,
        keys=tables,
    )


def expanded(paths: Any) -> Any:
    """The paths with what their braces stand for; a name that is there is meant as it is."""
    items = [paths] if isinstance(paths, PATH_TYPES) else paths
    if not isinstance(items, Sequence):
        return paths  # whoever looks for the files says what is wrong
    every: list[Any] = []
    for item in items:
        path = os.path.expanduser(path_text(item))
        is_pattern = "{" in path and not store_of(path).has(path)
        every += expand_braces(path) if is_pattern else [item]
    return every


def index_of(
    files: Sequence[Found], infos: Sequence[Inspected], where: Where
) -> tuple[TarIndex, list[int]]:
    """The index, and the number in it of each file."""
    by_path = {file.path: (file, info) for file, info in zip(files, infos, strict=True)}
    paths = sorted(by_path)
    folder = folder_of(paths)
    names = names_below(folder, paths)
    versions = [version_of(by_path[path][1]) for path in paths]

    def is_current(file: ColumnFile) -> bool:
        index = TarIndex(file)
        return index.names == names and index.columns["versions"].tolist() == versions

    def build(old: ColumnFile | None) -> Any:
        of = [by_path[path] for path in paths]
        known = _usable(old)
        return build_index([file for file, _ in of], [info for _, info in of], names, folder, known)

    most_bytes = sum(size for size, _ in versions)  # of a member it has less than the header
    index = TarIndex(indexed(paths, RECIPE, is_current, build, where, most_bytes=most_bytes))
    number_of = {path: number for number, path in enumerate(paths)}
    return index, [number_of[file.path] for file in files]


def _usable(old: ColumnFile | None) -> TarIndex | None:
    """An index of which much may be taken over, if it is as it was written."""
    if old is None:
        return None
    try:
        old.check()
        index = TarIndex(old)
        index.columns  # noqa: B018  (checks them)
    except DataError:
        return None
    return index


def _checked_fields(fields: Any) -> list[str]:
    """Of those of ``from_tar``: with their question marks."""
    is_list = isinstance(fields, Sequence) and not isinstance(fields, (str, bytes))
    if not is_list or not fields:
        raise ConfigError(
            "fields= is a sequence of extensions of the files in the archives, as in ('jpg', "
            f"'cls', 'json?'), not {short(fields)}"
        )
    names = []
    for field in fields:
        if not isinstance(field, str) or not is_field(field.removesuffix("?")):
            raise ConfigError(f"fields=: {short(field)} is no extension, such as 'jpg'")
        if field != field.lower() or field.startswith("."):
            meant = field.lower().removeprefix(".")
            raise ConfigError(
                f"fields=: {short(field)}: fields are in lower case and without the first dot, as "
                f"webdataset has them: give {short(meant)}"
            )
        names.append(field)
    plain = [name.removesuffix("?") for name in names]
    if len(set(plain)) < len(plain):
        raise ConfigError(f"fields=: {listed([short(name) for name in names])}: one comes twice")
    return names


def _fields_of(
    index: TarIndex, names: Sequence[str], missing: Missing, files: Sequence[Found]
) -> list[TarField]:
    numbers = {name: number for number, name in enumerate(index.extensions)}
    wanted = []
    for name in names:
        plain = name.removesuffix("?")
        is_optional = name != plain or missing == "empty"
        if plain not in numbers and not name.endswith("?"):
            raise DataError(
                f"{printable(files[0].path)}: of {count_of(index.num_samples, 'sample')} in "
                f"{count_of(len(files), 'archive')} none has the field {plain!r}: "
                f"{did_you_mean(plain, _shown(index))}"
            )
        if plain not in numbers:
            warn(
                f"{printable(files[0].path)}: no sample of {index.num_samples} has the field "
                f"{name!r}, so it is empty in each: {did_you_mean(plain, _shown(index))}"
            )
        wanted.append(TarField(plain, numbers.get(plain, -1), is_optional))
    return wanted


def _shown(index: TarIndex) -> list[str]:
    """The most frequent extensions."""
    frequent = np.argsort(-index.columns["counts"].astype(np.int64), kind="stable")[:_MOST_FOUND]
    names = [index.extensions[number] for number in frequent.tolist()]
    return [printable(name) for name in names if is_field(name)]


def _found_fields(index: TarIndex, missing: Missing) -> list[TarField]:
    """All that there are."""
    counts = index.columns["counts"].tolist()
    if len(counts) > _MOST_FOUND:
        raise ConfigError(
            f"the files in the archives have {len(counts)} different extensions: name those that "
            f"are wanted, as in fields=({listed([repr(one) for one in _shown(index)], most=3)})"
        )
    found = [
        TarField(name, number, missing == "empty") for number, name in enumerate(index.extensions)
    ]
    return sorted(found)


def _layout(fields: Sequence[TarField]) -> SampleLayout:
    """Each field lies by itself: there is a header between two of them."""
    return SampleLayout(
        tuple(
            SampleField(field.name, "uint8", False, (None,), -1, piece)
            for piece, field in enumerate(fields)
        ),
        record_bytes=0,
    )


def _sizes(index: TarIndex, fields: Sequence[TarField]) -> SampleSizes:
    """As the index says, whose columns of samples are not looked at."""
    columns = index.columns
    numbers = [field.extension for field in fields if field.extension >= 0]
    total, largest = (min(sum(columns[name][numbers].tolist()), _MOST) for name in _OF_ALL)
    span = int((columns["stops"] - columns["begins"]).sum())
    return SampleSizes(index.num_samples, total, largest, max(total, span))


def looks_like_tars(paths: Any) -> bool:
    """By their names."""
    items = [paths] if isinstance(paths, PATH_TYPES) else paths
    return (
        isinstance(items, Sequence)
        and bool(items)
        and all(
            isinstance(one, PATH_TYPES) and os.fsdecode(one).lower().endswith(_ENDINGS)
            for one in items
        )
    )


TAR_FORMAT = SampleFormat("tar", lambda paths, order: looks_like_tars(paths), open_tars)
