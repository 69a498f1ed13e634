"""Which store a path is in."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from .. import _C
from ..config import refuse_address
from ..errors import ConfigError
from ..wording import short
from .file_store import FileStore
from .local_files import LocalFiles
from .s3_config import S3Config
from .store import Store

# `store=` of data sets and writers: a config, or what `open_store` gives.
if TYPE_CHECKING:
    from .s3_store import S3Store

    StoreSetting: TypeAlias = S3Config | S3Store | FileStore | None
else:  # an S3Store's class is loaded with the first one
    StoreSetting = S3Config | FileStore | None

_FILES = LocalFiles()
_STORES: dict[str, Store] = {}  # by scheme, as "s3" in s3://bucket/name


def configure_store(paths: Any, store: StoreSetting, index: Any = None) -> FileStore | None:
    """``store=`` of those who read or write these paths. Gives it where it is one of files.

    Args:
        index: Where their index lies. A bucket that it names is reached alike, unless it has a
            config already.

    Raises:
        ConfigError: It is neither a config nor a store, or not of these paths; a bucket has another
            config.
    """
    if store is None:
        return None
    items = [paths] if isinstance(paths, (str, bytes, os.PathLike)) else paths
    named = items if isinstance(items, Sequence) else []
    in_buckets = [path for path in named if isinstance(path, str) and scheme_of(path) == "s3"]
    if isinstance(store, FileStore):
        if in_buckets:
            raise ConfigError(
                f"store= is a FileStore, and {short(in_buckets[0])} is in a bucket: give an "
                "S3Config, or what open_store gives for the bucket"
            )
        return store
    config = store if isinstance(store, S3Config) else _config_of(store)
    if config is None:
        raise ConfigError(
            f"store must be an S3Config, what open_store gives, or None, not {short(store)}"
        )
    if len(in_buckets) < len(named) or not in_buckets:
        what = "an S3Config" if config is store else "of a bucket"
        raise ConfigError(f"store= is {what}, for paths that begin with s3://: leave it out")
    store_of(in_buckets[0])  # where it was built without, that says so
    from .s3_buckets import bucket_of
    from .s3_objects import the_s3_objects

    buckets = the_s3_objects().buckets
    buckets.configure(dict.fromkeys(map(bucket_of, in_buckets)), config)
    if isinstance(index, str) and scheme_of(index) == "s3" and not buckets.is_configured(index):
        buckets.configure([bucket_of(index)], config)
    return None


def reach_buckets(config: S3Config) -> None:
    """Those that have no config of their own are reached like this from now on."""
    store_of("s3://")  # where it was built without, that says so
    from .s3_objects import the_s3_objects

    the_s3_objects().buckets.configure_others(config)


def _config_of(store: Any) -> S3Config | None:
    """Of an S3Store; None of anything else."""
    if not _C.built_with_s3:
        return None
    from .s3_store import S3Store

    return store.config if isinstance(store, S3Store) else None


def register_store(scheme: str, store: Store) -> None:
    """Paths that begin with ``scheme://`` are then this store's."""
    _STORES[scheme] = store


def registered_stores(schemes: Iterable[str]) -> dict[str, Store]:
    """Those of these schemes, but of files: for a process that has not registered them."""
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
    if scheme == "s3" and scheme not in _STORES:
        register_store(scheme, _s3_objects(path))
    if scheme in _STORES:
        return _STORES[scheme]
    refuse_address(path)
    return _FILES


def _s3_objects(path: str) -> Store:
    """Loaded when it is first asked for."""
    if not _C.built_with_s3:
        raise ConfigError(
            f"{path}: this torch_s3io was built with TORCH_S3IO_NO_S3=1, without object storage: "
            "build it without that variable, with libcurl4-openssl-dev and libssl-dev installed"
        )
    from .s3_objects import the_s3_objects

    return the_s3_objects()
