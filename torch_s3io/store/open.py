"""The store of a path, for who reads and writes whole objects and ranges of them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..config import FileSystemConfig, path_text
from ..errors import ConfigError
from ..wording import short
from .file_store import FileStore, as_path
from .stores import StoreSetting, configure_store, scheme_of, store_of

if TYPE_CHECKING:
    from .s3_store import S3Store


def open_store(
    path: str | os.PathLike[str], config: FileSystemConfig | StoreSetting = None
) -> FileStore | S3Store:
    """The store that a path is in::

        store = s3io.open_store("s3://bucket/prefix", s3io.S3Config(endpoint="http://host:9000"))
        store.put("s3://bucket/prefix/name", data)

    Its methods take whole paths, as ``s3://bucket/key``.

    Args:
        path: ``s3://bucket``, or anything in it: an S3Store. A folder, or a file: a FileStore.
        config: An S3Config for a bucket, of which all living data sets that read it have the same
            one; a FileSystemConfig for files. Or a store that has such a one. None: the defaults.

    Raises:
        ConfigError: The config is of another kind; or data sets read the bucket with another one.
    """
    if isinstance(path, str) and scheme_of(path) == "s3":
        if isinstance(config, FileSystemConfig):
            raise ConfigError(f"{path}: its store takes an S3Config, not {short(config)}")
        path_text(path)
        configure_store(path, config)
        store_of(path)  # says so where the package was built without
        from .s3_store import S3Store

        return S3Store(path)
    as_path(path)
    if isinstance(config, FileStore):
        return config
    if config is not None and not isinstance(config, FileSystemConfig):
        raise ConfigError(f"{path}: its store takes a FileSystemConfig, not {short(config)}")
    return FileStore(config)
