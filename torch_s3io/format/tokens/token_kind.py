"""The index of documents of tokens, for the commands."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from ...errors import AccessError, ConfigError, NotFoundError
from ...index.column_file import ColumnFile
from ...index.kind import IndexKind
from ...index.place import Where, path_below
from ...wording import short, size_text
from ..files import inspect_again
from .document_index import check_columns

_ENDINGS = (".bin", ".npy")


def _takes(paths: Sequence[str]) -> bool:
    return all(path.endswith(_ENDINGS) for path in paths)


def _make(paths: Sequence[str], where: Where, fields: Sequence[str]) -> NoReturn:
    """Nobody but the program knows which token it is."""
    raise ConfigError(
        f"{short(paths[0])}: no index is made of it ahead. Tokens with documents that end with one "
        "of them, or that a .csv.gz lists, have one, which the first program makes that says which "
        "tokens these are: TokenDataset(paths, window=2049, dtype='uint16', eos=0). Other tokens, "
        "and arrays that are named one by one or in a bucket, need none"
    )


def _is_current(file: ColumnFile) -> bool:
    check_columns(file)
    names = [str(name) for name, *_ in file.head["names"]]
    folder = os.path.dirname(file.path)
    if not (names and os.path.lexists(path_below(folder, names[0]))):
        folder = str(file.head.get("folder"))
    paths = [path_below(folder, name) for name in names]
    try:
        found = [info.identity for info in inspect_again(paths)]
    except (NotFoundError, AccessError, ConfigError):
        return False
    sizes, times = file.columns["sizes"].tolist(), file.columns["modified_ns"].tolist()
    versions = [(one.size_bytes, one.modified_ns) for one in found]
    return versions == list(zip(sizes, times, strict=True))


def _describe(file: ColumnFile) -> list[tuple[str, str]]:
    lengths, recipe = file.columns["lengths"], file.head["recipe"]
    how = f"{'begin' if recipe.get('begins') else 'end'} with {short(recipe.get('token'))}"
    if recipe.get("token") is None:
        how = "lists beside the files name"
    size = int(file.columns["sizes"].sum())
    return [
        ("files", f"{len(file.columns['sizes'])}, {size_text(size)}"),
        ("documents", f"{len(lengths)}, which {how}"),
        ("tokens", f"{int(lengths.sum(dtype=np.uint64))} of {short(recipe.get('dtype'))}"),
    ]


TOKEN_KIND = IndexKind(
    "tokens",
    "documents of tokens",
    takes=_takes,
    make=_make,
    is_current=_is_current,
    describe=_describe,
)
