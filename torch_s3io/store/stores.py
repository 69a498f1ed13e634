"""Which store a path is in."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from .. import _C
from ..config import refuse_address
from ..errors import ConfigError
from ..wording import short
from .local_files import LocalFiles
from .s3_config import S3Config
from .store import Store

_FILES = LocalFiles()
_STORES: dict[str, Store] = {}  # by scheme, as "s3" in s3://bucket/name


def configure_store(paths: Any, config: S3Config | None) -> None:
    """``store=`` of those who read these paths.

    Raises:
        ConfigError: It is no config, or the paths are not in buckets; a bucket has another config.
    """
    if config is None:
        return
    if not isinstance(config, S3Config):
        raise ConfigError(f"store must be an S3Config or None, not {short(config)}")
    items = [paths] if isinstance(paths, (str, bytes, os.PathLike)) else paths
    named = items if isinstance(items, Sequence) else []
    in_buckets = [path for path in named if isinstance(path, str) and scheme_of(path) == "s3"]
    if len(in_buckets) < len(named) or not in_buckets:
        raise ConfigError("store= is an S3Config, for paths that begin with s3://: leave it out")
    store_of(in_buckets[0])  # where it was built without, that says so
    from .s3_objects import bucket_of, the_s3_objects

    the_s3_objects().configure(dict.fromkeys(map(bucket_of, in_buckets)), config)


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
