"""The objects that a benchmark reads from a bucket: made if they are absent."""

from __future__ import annotations

from collections.abc import Iterable

from ..store.open import open_store
from ..store.store import Identity
from .config import DataConfig
from .data import blocks, names_of


def missing(data: DataConfig) -> list[tuple[int, str]]:
    """Number and path of the objects that are absent, or not of their size."""
    from ..store.s3_objects import the_s3_objects

    names = names_of(data)
    folder = names[0].removesuffix("0.bin")
    listed = the_s3_objects().buckets.core_store(folder).list_objects(folder)
    sizes = {path: Identity(*version).size_bytes for path, version, _ in listed}
    return [(n, name) for n, name in enumerate(names) if sizes.get(name) != data.file_bytes]


def make(data: DataConfig, objects: Iterable[tuple[int, str]]) -> None:
    """Writes these objects, each whole or not at all."""
    store = open_store(data.folder)
    for number, path in objects:
        with store.writer(path, size_bytes=data.file_bytes) as writer:
            for block in blocks(data, number):
                writer.write(block)
