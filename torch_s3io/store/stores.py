"""Which store a path is in."""

from __future__ import annotations

from ..config import refuse_address
from .local_files import LocalFiles
from .store import Store

_FILES = LocalFiles()
_STORES: dict[str, Store] = {}  # by scheme, as "s3" in s3://bucket/name


def register_store(scheme: str, store: Store) -> None:
    """Paths that begin with ``scheme://`` are then this store's."""
    _STORES[scheme] = store


def store_of(path: str) -> Store:
    """The one that its scheme names; without one, files.

    Raises:
        ConfigError: Nobody has registered this scheme.
    """
    scheme, separator, _ = path.partition("://")
    if separator and scheme in _STORES:
        return _STORES[scheme]
    refuse_address(path)
    return _FILES
