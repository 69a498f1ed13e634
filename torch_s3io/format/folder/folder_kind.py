"""The indexes of the files that a pattern means, for the commands."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import ConfigError
from ...index.column_file import ColumnFile
from ...index.kind import IndexKind
from ...index.place import Where
from ...store.file_columns import FilePattern
from ...store.stores import scheme_of
from ...wording import listed, printable, short, size_text
from .array_index import KIND as ARRAYS
from .array_index import arrays_in, check_arrays, npy_contents, npz_contents
from .array_samples import DATA
from .folder_index import KIND, NOTHING, Contents, folder_index, is_current, labels_in

_MOST_SHOWN = 12


def _pattern_of(path: str) -> FilePattern | None:
    return None if scheme_of(path) else FilePattern.of(path)


def _takes(paths: Sequence[str]) -> bool:
    return any(_pattern_of(path) is not None for path in paths)


def _takes_arrays(paths: Sequence[str]) -> bool:
    return _takes(paths) and all(path.endswith((".npy", ".npz")) for path in paths)


def _make(paths: Sequence[str], where: Where, fields: Sequence[str]) -> ColumnFile:
    return _made(paths, where, NOTHING)


def _make_of_arrays(paths: Sequence[str], where: Where, fields: Sequence[str]) -> ColumnFile:
    if paths[0].endswith(".npy"):
        if fields:
            raise ConfigError("--fields is for .npz archives: .npy files have one array each")
        return _made(paths, where, npy_contents(DATA))
    if not fields:
        raise ConfigError(
            f"{short(paths[0])}: the index of archives is of some of their arrays: give the names "
            "that the program gives as fields=, as in --fields image,mask"
        )
    return _made(paths, where, npz_contents(fields, inflates=True))


def _made(paths: Sequence[str], where: Where, contents: Contents) -> ColumnFile:
    pattern = _pattern_of(paths[0])
    if len(paths) > 1 or pattern is None:
        raise ConfigError(
            f"{short(paths[0])}, ...: each pattern has an index of its own: give one, in quotes"
        )
    index = folder_index(pattern, where, contents, fewest=1)
    assert isinstance(index, ColumnFile)
    return index


def _describe(file: ColumnFile) -> list[tuple[str, str]]:
    sizes, recipe = file.columns["sizes"], file.head["recipe"]
    labels = labels_in(file)
    classes = "none: a file lies in no folder" if labels is None else str(len(labels[1]))
    return [
        ("pattern", f"{recipe.get('pattern')} in {file.head.get('folder')}"),
        ("files", f"{len(sizes)}, {size_text(int(sizes.sum()))}"),
        ("folders", str(len(file.columns["folder_times"]))),
        ("classes", classes),
    ]


def _describe_arrays(file: ColumnFile) -> list[tuple[str, str]]:
    arrays = [
        f"{printable(one.name)}: {one.dtype} {list(one.shape)}".replace("None", "n")
        for one in arrays_in(file).values()
    ]
    return [*_describe(file), ("arrays", listed(arrays, most=_MOST_SHOWN))]


ARRAY_KIND = IndexKind(
    ARRAYS,
    ".npy files or .npz archives of a pattern",
    takes=_takes_arrays,
    make=_make_of_arrays,
    is_current=lambda file: is_current(file, check_arrays),
    describe=_describe_arrays,
    has_fields=True,
)
FOLDER_KIND = IndexKind(
    KIND,
    "files of a pattern",
    takes=_takes,
    make=_make,
    is_current=is_current,
    describe=_describe,
)
