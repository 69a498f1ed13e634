"""Which store a path is in."""

from __future__ import annotations

from collections.abc import Iterable

from ..config import refuse_address
from .local_files import LocalFiles
from .store import Store

_FILES = LocalFiles()
_STORES: dict[str, Store] = {}  # by scheme, as "s3" in s3://bucket/name


def register_store(scheme: str, store: Store) -> None:
    """Paths that begin with ``scheme://`` are then this store's."""
    _STORES[scheme] = store


def registered_stores(schemes: Iterable[str]) -> dict[str, Store]:
    """Those of these schemes that somebody registered: for a process that has not."""
    return {one: _STORES[one] for one in schemes if one in _STORES}


def scheme_of(path: str) -> str:
    """As "s3" of s3://bucket/name; "" of a path without one."""
    scheme, separator, _ = path.partition("://")
    return scheme if separator else ""


def store_of(path: str) -> Store:
    """The one that its scheme names; without one, files.

    Raises:
        ConfigError: Nobody has registered this scheme.
    """
    scheme = scheme_of(path)
    if scheme in _STORES:
        return _STORES[scheme]
    refuse_address(path)
    return _FILES
