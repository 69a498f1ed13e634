"""Which objects and folders the paths of a data set name, and in which order."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from ..config import PATH_TYPES, check_choice, path_text
from ..errors import ConfigError, NotFoundError
from ..store.local_files import in_order
from ..store.store import FileOrder, Found, Store
from ..store.stores import scheme_of, store_of
from ..wording import short
from .manifest import has_manifest, has_own_manifest

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
_LOOKED_AT = 10_000  # of the files in a folder, for an error about it


def find_files(
    paths: Paths, order: FileOrder = "name", *, ending: str | None = None
) -> list[Found]:
    """The objects that ``paths`` names: those of a pattern or a folder sorted, sequences in their
    order. Folders that a pattern matches are left out.

    Args:
        order: ``"name"``: by the characters of the path. ``"natural"``: m2 before m10.
        ending: What a folder stands for: its files of this ending. None: nothing, it is refused.

    Raises:
        NotFoundError: A pattern matches nothing, or there are no paths.
        ConfigError: Something that is not a path.
    """
    check_choice("file_order", order, FileOrder)
    items = [paths] if isinstance(paths, PATH_TYPES) else paths
    has_no_order = isinstance(items, (set, frozenset))
    if not isinstance(items, Iterable) or has_no_order:
        raise ConfigError(
            f"paths must be a path, a pattern or a sequence of them, not {short(paths)}; of a set "
            "or an iterator, make a list"
        )
    files: list[Found] = []
    first = next(iter(items), None) if isinstance(items, Sequence) else None
    if isinstance(first, str) and scheme_of(first):
        store_of(first).expect(item for item in items if isinstance(item, str))
    for item in items:
        path = os.path.expanduser(path_text(item))
        store = store_of(path)
        if store.is_folder(path):
            files += _of_folder(store, path, order, ending)
        else:
            files += store.find(path, order)
    if not files:
        raise NotFoundError(
            "there are no files: paths is empty; name a file, a pattern or a folder"
        )
    return files


def _of_folder(store: Store, path: str, order: FileOrder, ending: str | None) -> list[Found]:
    is_packed = has_manifest(path) if ending is None else has_own_manifest(path)
    if is_packed:
        raise ConfigError(
            f"{path}: is a folder with a manifest, which says what it holds: RecordDataset, or of "
            "samples SampleDataset, reads it, alone or beside others of its kind"
        )
    if ending is None:
        raise ConfigError(_advice_for_folder(store, path))
    top = os.path.join(store.absolute(path), "")
    found = [file for file in store.below(path) if file.endswith(ending)]
    if not found:
        raise NotFoundError(f"{path}: there are no {ending} files in this folder")
    files = [store.absolute(file) for file in in_order(found, order)]
    return [Found(file, file.removeprefix(top)) for file in files]


def _advice_for_folder(store: Store, path: str) -> str:
    """What to do with a folder without a manifest."""
    start = (
        f"{path}: is a folder that neither RecordWriter nor pack wrote (it has no manifest.json)"
    )
    first = itertools.islice(store.below(path), _LOOKED_AT)
    names = [file for file in first if os.path.dirname(file) == path.rstrip("/")]
    endings = Counter(os.path.splitext(name)[1] for name in names)
    if not endings:
        return f"{start}, and there are no files in it; name another one"
    arrays = endings.pop(".npy", 0)
    advice = f"RecordDataset.from_npy({path!r}) reads its arrays" if arrays else ""
    if endings:
        pattern = os.path.join(path, "*" + endings.most_common(1)[0][0])
        others = f"name its files by a pattern, such as {pattern!r}, and say dtype= and shape="
        advice = f"{others}; {advice}" if arrays else others
    return f"{start}; {advice}"


def refuse_missing(paths: Any, order: FileOrder) -> None:
    """Raises NotFoundError for the first one that names nothing."""
    items = [paths] if isinstance(paths, PATH_TYPES) else paths
    for item in items if isinstance(items, Sequence) else []:
        path = os.path.expanduser(path_text(item))
        if not store_of(path).is_folder(path):
            store_of(path).find(path, order)


def manifest_folders(paths: Any, order: FileOrder = "name") -> list[str]:
    """The folders that ``paths`` names, also by patterns, if all of them have a manifest."""
    items = [paths] if isinstance(paths, PATH_TYPES) else paths
    folders: list[str] = []
    for item in items if isinstance(items, Sequence) else []:
        path = os.path.expanduser(path_text(item))
        store = store_of(path)
        found = store.matches(path, order)
        if not found or not all(store.is_folder(one) and has_manifest(one) for one in found):
            return []
        folders += found
    return folders
