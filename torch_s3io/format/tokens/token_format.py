"""Which files of tokens there are, and in which of the formats."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch

from ...config import PATH_TYPES, check_choice, check_int, path_text
from ...errors import ConfigError, NotFoundError
from ...index.place import Where, check_where
from ...store.store import FileOrder, Found, Inspected
from ...store.stores import store_of
from ...wording import printable, short
from ..files import inspect
from ..layout import checked_dtype, name_of
from ..paths import Paths, find_files
from .datatrove import open_datatrove
from .document_index import Sought
from .document_table import TokenFile
from .ends import find_ended
from .llm_c import MAGICS, magic_of, open_llm_c
from .megatron import Repair, index_path, open_megatron
from .raw import Documented, open_raw
from .spans import find_listed

TokenFormat = Literal["auto", "megatron", "llm.c", "raw", "datatrove"]

# Files beside tokens, by the endings of their names.
_BESIDE = (".idx", ".ds.index", ".ds.metadata", ".ds.loss", ".csv.gz")


@dataclass(frozen=True)
class TokenOptions:
    """What a data set of tokens was told of its files.

    Attributes:
        format: Of all of them.
        dtype: Of the tokens, where nothing else says it; None: not told.
        eos: The token that ends a document.
        bos: The token that begins one.
        index: Where the places of documents that end with it, or are listed, are kept.
        repair: Whether wrong offsets are made anew.
    """

    format: TokenFormat = "auto"
    dtype: Any = None
    eos: int | None = None
    repair: Repair | None = None
    index: Where = True
    bos: int | None = None

    @property
    def delimiter(self) -> int | None:
        """The token that ends documents, or begins them."""
        return self.bos if self.eos is None else self.eos

    def checked(self) -> TokenOptions:
        """Raises ConfigError."""
        check_choice("format", self.format, TokenFormat)
        if self.repair is not None:
            check_choice("repair", self.repair, Repair)
        check_where(self.index)
        if self.eos is not None and self.bos is not None:
            raise ConfigError("eos= and bos=: give one, the token that ends or begins a document")
        eos = None if self.eos is None else check_int("eos", self.eos, 0)
        bos = None if self.bos is None else check_int("bos", self.bos, 0)
        return replace(
            self, eos=eos, bos=bos, dtype=None if self.dtype is None else _as_numpy(self.dtype)
        )


def open_tokens(paths: Paths, order: FileOrder, options: TokenOptions) -> list[TokenFile]:
    """The files that the paths name, which all have tokens of one type.

    Raises:
        NotFoundError, AccessError: A file, or one that belongs to it, is missing or not to be read.
        DataError: One is damaged.
        ConfigError: Something must be told, or has no use here.
    """
    files = find_token_files(paths, order)
    found = [_open(file, info, options) for file, info in zip(files, inspect(files), strict=True)]
    for file, one in zip(files, found, strict=True):
        if one.dtype != found[0].dtype:
            raise ConfigError(
                f"{printable(file.path)}: has tokens of {one.dtype}, but "
                f"{printable(files[0].path)} has {found[0].dtype}: read them as data sets of their "
                "own"
            )
    sought = [one for one in found if isinstance(one, Sought)]
    if not sought and not isinstance(options.index, bool):
        raise ConfigError(
            "index= is for documents that eos= or bos= tells, or a .csv.gz lists: leave it out"
        )
    tables = iter(_find(sought, options) if sought else [])
    return [next(tables) if isinstance(one, Sought) else one for one in found]


def _find(sought: Sequence[Sought], options: TokenOptions) -> list[TokenFile]:
    if options.delimiter is None:
        return find_listed(sought, options.index)
    return find_ended(sought, options.delimiter, options.eos is None, options.index)


def find_token_files(paths: Paths, order: FileOrder) -> list[Found]:
    """Raises NotFoundError, ConfigError."""
    items = [paths] if isinstance(paths, PATH_TYPES) else paths
    if isinstance(items, Sequence):
        paths = [_named(item) for item in items]
    files = find_files(paths, order)
    # Once each: a file and the one beside it may both be named.
    data = list({file.path: file for file in files if not file.path.endswith(_BESIDE)}.values())
    if not data:
        raise NotFoundError(
            f"{printable(files[0].path)}: belongs to a file of tokens, which is not named: name "
            "that, as in 'corpus/*.bin' or 'corpus/*.ds'"
        )
    return data


def _named(item: str | bytes | os.PathLike[Any]) -> str:
    """What a path or pattern of an index, or a prefix of Megatron's, stands for."""
    path = os.path.expanduser(path_text(item))
    store = store_of(path)
    if store.is_folder(path):
        raise ConfigError(
            f"{printable(path)}: is a folder; name its files by a pattern, such as "
            f"{os.path.join(path, '*.bin')!r}"
        )
    if path.endswith(".idx"):
        return path.removesuffix(".idx") + ".bin"
    if path.endswith(".ds.index"):
        return path.removesuffix(".index")
    return f"{path}.bin" if not store.has(path) and store.has(f"{path}.idx") else path


def _open(file: Found, info: Inspected, options: TokenOptions) -> TokenFile | Sought:
    format = _format_of(file.path) if options.format == "auto" else options.format
    _refuse_unused(file.path, format, options)
    documented = Documented(options.delimiter, spans=format == "raw")
    if format == "megatron":
        return open_megatron(file, info, options.repair)
    if format == "datatrove":
        return open_datatrove(file, info, options.dtype)
    if format == "llm.c":
        return open_llm_c(file, info, documented)
    if options.dtype is None:
        raise ConfigError(
            f"{printable(file.path)}: nothing says what its tokens are: give dtype='uint16', or "
            "'uint32' where the vocabulary has more than 65536 tokens"
        )
    return open_raw(file, info, options.dtype, documented)


def _format_of(path: str) -> TokenFormat:
    store = store_of(path)
    if path.endswith(".ds"):
        return "datatrove"
    if path.endswith(".bin") and store.has(index_path(path)):
        return "megatron"
    return "llm.c" if path.endswith(".bin") and magic_of(path) in MAGICS else "raw"


def _refuse_unused(path: str, format: TokenFormat, options: TokenOptions) -> None:
    """Options that would have no effect."""
    takes = {"megatron": {"repair"}, "datatrove": {"dtype"}, "llm.c": {"eos", "bos"}}
    known = takes.get(format, {"dtype", "eos", "bos"})
    for name in ("dtype", "eos", "bos", "repair"):
        if getattr(options, name) is not None and name not in known:
            raise ConfigError(
                f"{printable(path)}: is read as {format!r}, which needs no {name}=: leave it out, "
                f"or say which of {', '.join(get_args(TokenFormat)[1:])} it is, with format="
            )


def _as_numpy(dtype: Any) -> np.dtype[Any]:
    checked = checked_dtype(dtype)
    if isinstance(checked, torch.dtype):
        try:
            checked = np.dtype(name_of(checked))
        except TypeError:
            raise ConfigError(f"dtype={short(dtype)}: tokens are whole numbers") from None
    if checked.kind not in "iu":
        raise ConfigError(f"dtype={short(dtype)}: tokens are whole numbers, such as 'uint16'")
    return checked
