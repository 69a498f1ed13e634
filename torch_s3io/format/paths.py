"""Which files and folders the paths of a data set name, and in which order."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, NoReturn

from ..config import check_choice, refuse_address
from ..errors import AccessError, ConfigError, NotFoundError
from ..wording import short
from .manifest import has_manifest, has_own_manifest

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
FileOrder = Literal["name", "natural"]
_PATH = (str, bytes, os.PathLike)


class Found(NamedTuple):
    """A file that a source names: a path, a pattern, or a folder.

    Attributes:
        path: Absolute.
        name: The path below the fixed part of the source: the folder of a file, the folders of a
            pattern in front of its first wildcard, a folder itself. It survives a copy of the
            files to another place, whatever else the data set has elsewhere.
    """

    path: str
    name: str


def find_files(
    paths: Paths, order: FileOrder = "name", *, ending: str | None = None
) -> list[Found]:
    """The files that ``paths`` names: those of a pattern or a folder sorted, sequences in their
    order. Folders that a pattern matches are left out.

    Args:
        order: ``"name"``: by the characters of the path. ``"natural"``: m2 before m10.
        ending: What a folder stands for: its files of this ending. None: nothing, it is refused.

    Raises:
        NotFoundError: A pattern matches nothing, or there are no paths.
        ConfigError: Something that is not a path.
    """
    check_choice("file_order", order, FileOrder)
    items = [paths] if isinstance(paths, _PATH) else paths
    has_no_order = isinstance(items, (set, frozenset))
    if not isinstance(items, Iterable) or has_no_order:
        raise ConfigError(
            f"paths must be a path, a pattern or a sequence of them, not {short(paths)}; of a set "
            "or "
            "an iterator, make a list"
        )
    files: list[Found] = []
    for item in items:
        if not isinstance(item, _PATH):
            raise ConfigError(f"{item!r} is not a path")
        path = os.path.expanduser(os.fsdecode(item))
        if not isinstance(path, str) or not path or "\0" in path:
            raise ConfigError(f"{item!r} is not a path")
        refuse_address(path)
        files += _find(path, order, ending)
    if not files:
        raise NotFoundError(
            "there are no files: paths is empty; name a file, a pattern or a folder"
        )
    return files


def _find(path: str, order: FileOrder, ending: str | None) -> list[Found]:
    if os.path.isdir(path):
        return _below(path, _files_of_folder(path, order, ending))
    pattern = _as_pattern(path)
    if pattern is None:
        _refuse_missing(path)
        return _below(os.path.dirname(path), [path])
    matches = [match for match in _glob(*pattern) if not os.path.isdir(match)]
    if not matches:
        raise NotFoundError(
            f"{path}: no file matches this pattern, in which *, ? and [...] stand for other "
            "characters; where they belong to a name, glob.escape(name) takes them as they are"
        )
    return _below(pattern[0], in_order(matches, order))


def _refuse_missing(path: str) -> None:
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        what = "is a link to a file that is not there" if os.path.islink(path) else "is not there"
        raise NotFoundError(
            f"{_absolute(path)}: {what}; name a file, a pattern such as 'train/*.bin', or a folder"
        ) from None
    except OSError:
        return  # whoever opens it says what is wrong


def _below(top: str, paths: list[str]) -> list[Found]:
    files = [_absolute(path) for path in paths]
    above = os.path.join(_absolute(top), "")
    return [Found(file, file.removeprefix(above)) for file in files]


def _as_pattern(path: str) -> tuple[str, str] | None:
    """The pattern that ``path`` is: a folder, and what is to be matched below it; None for the
    name of one file.

    A folder that is there under exactly this name is meant by it, whatever characters it has.
    """
    if not glob.has_magic(path) or os.path.lexists(path):
        return None
    ends = [match.end() for match in re.finditer("/", path)]
    there = max((end for end in ends if os.path.lexists(path[:end])), default=0)
    return path[:there], path[there:]


def _glob(folder: str, pattern: str) -> Iterator[str]:
    return glob.iglob(glob.escape(folder) + pattern, recursive=True)


def _files_of_folder(path: str, order: FileOrder, ending: str | None) -> list[str]:
    is_packed = has_manifest(path) if ending is None else has_own_manifest(path)
    if is_packed:
        raise ConfigError(
            f"{path}: is a folder with a manifest, which says what its records are: "
            f"RecordDataset({path!r}) reads it, alone or beside others that have one"
        )
    if ending is None:
        raise ConfigError(_advice_for_folder(path))
    found = [file for file in files_below(path) if file.endswith(ending)]
    if not found:
        raise NotFoundError(f"{path}: there are no {ending} files in this folder")
    return in_order(found, order)


def _advice_for_folder(path: str) -> str:
    """What to do with a folder without a manifest."""
    start = (
        f"{path}: is a folder that neither RecordWriter nor pack wrote (it has no manifest.json)"
    )
    try:
        names = [entry.name for entry in os.scandir(path) if entry.is_file()]
    except OSError as error:
        _refuse(error)
    endings = Counter(os.path.splitext(name)[1] for name in names if not name.startswith("."))
    if not endings:
        return f"{start}, and there are no files in it; name another one"
    arrays = endings.pop(".npy", 0)
    advice = f"RecordDataset.from_npy({path!r}) reads its arrays" if arrays else ""
    if endings:
        pattern = os.path.join(path, "*" + endings.most_common(1)[0][0])
        others = f"name its files by a pattern, such as {pattern!r}, and say dtype= and shape="
        advice = f"{others}; {advice}" if arrays else others
    return f"{start}; {advice}"


def files_below(
    top: str, leaves_out: Callable[[str, list[str]], bool] = lambda folder, names: False
) -> Iterator[str]:
    """The files in a folder and those below it, links followed; but nothing hidden.

    Args:
        leaves_out: Of a folder and the names in it: whether it is left out.

    Raises:
        AccessError: A folder cannot be listed.
    """
    seen = set()  # a link may lead to a folder above it
    for folder, folders, names in os.walk(top, followlinks=True, onerror=_refuse):
        real = os.path.realpath(folder)
        if real in seen or leaves_out(folder, names):
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(folder, name) for name in names if not name.startswith("."))


def _refuse(error: OSError) -> NoReturn:
    raise AccessError(f"{error.filename}: cannot list the folder: {error.strerror}") from None


def in_order(paths: Iterable[str], order: FileOrder) -> list[str]:
    return sorted(paths, key=_natural_key if order == "natural" else None)


def _natural_key(path: str) -> tuple[list[str | int], str]:
    """Texts and numbers in turn; the path decides where they are equal (1 and 01)."""
    parts = re.split("([0-9]+)", path)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], path


def _absolute(path: str) -> str:
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        raise NotFoundError(
            f"{path}: the current directory, which it is relative to, was removed"
        ) from None


def manifest_folders(paths: Any, order: FileOrder = "name") -> list[str]:
    """The folders that ``paths`` names, also by patterns, if all of them have a manifest."""
    items = [paths] if isinstance(paths, _PATH) else paths
    folders: list[str] = []
    for item in items if isinstance(items, Sequence) else []:
        path = os.path.expanduser(os.fsdecode(item)) if isinstance(item, _PATH) else "\0"
        found = _packed_at(path, order)
        if not found:
            return []
        folders += found
    return folders


def _packed_at(path: str, order: FileOrder) -> list[str]:
    if "\0" in path:
        return []
    pattern = _as_pattern(path)
    if pattern is None:
        return [path] if _is_packed(path) else []
    found = []
    for match in _glob(*pattern):
        if not _is_packed(match):
            return []
        found.append(match)
    return in_order(found, order)


def _is_packed(path: str) -> bool:
    return os.path.isdir(path) and has_manifest(path)
