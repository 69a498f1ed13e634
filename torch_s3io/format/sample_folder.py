"""Folders that a SampleWriter wrote, as records."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from ..errors import ConfigError, DataError
from .delivery import make_delivery
from .files import inspect
from .paths import Found
from .sample_records import SampleObject, SampleRecords, SampleSizes
from .sample_table import load_table
from .samples import SampleManifest, read_sample_manifest


def open_sample_folders(
    folders: Sequence[str], ragged: Any, decode: Any, verify: bool
) -> SampleRecords:
    """The samples of these folders, one after the other; the table of each shard is read.

    Raises:
        NotFoundError, AccessError: A manifest or a shard is missing, or may not be read.
        DataError: One is damaged, or not what the manifest says.
        ConfigError: The folders have different fields; ``ragged`` or ``decode`` do not fit.
    """
    manifests = [read_sample_manifest(folder) for folder in folders]
    layout = manifests[0].layout
    for folder, manifest in zip(folders, manifests, strict=True):
        if manifest.layout != layout:
            raise ConfigError(
                f"{folder}: has {_described(manifest)}, but {folders[0]} has "
                f"{_described(manifests[0])}; read them as data sets of their own"
            )
    objects = [
        one
        for folder, manifest in zip(folders, manifests, strict=True)
        for one in _objects(folder, manifest)
    ]
    sizes = [_sizes(manifest) for manifest in manifests]
    records = SampleRecords(layout, objects, sizes, make_delivery(layout, ragged, decode), verify)
    records.tables()  # what is wrong with one is an error of whoever opens it
    return records


def _objects(folder: str, manifest: SampleManifest) -> list[SampleObject]:
    top = os.path.abspath(folder)
    files = [Found(os.path.join(top, entry.name), entry.name) for entry in manifest.shards]
    objects = []
    infos = inspect([file.path for file in files])
    for entry, file, info in zip(manifest.shards, files, infos, strict=True):
        if info.size_bytes != entry.size_bytes:
            raise DataError(
                f"{file.path}: has {info.size_bytes} bytes, but the manifest says "
                f"{entry.size_bytes}: it was cut off or appended to; copy it again, or write the "
                "data set anew"
            )
        objects.append(
            SampleObject(
                info.shard(file, 0, entry.num_samples),
                end=entry.table_offset,
                load=partial(load_table, file.path, entry, manifest),
                identity=entry.table_crc32c,
            )
        )
    return objects


def _sizes(manifest: SampleManifest) -> SampleSizes:
    return SampleSizes(
        manifest.num_samples,
        manifest.data_bytes,
        manifest.rms_sample_bytes,
        manifest.largest_sample_bytes,
        sum(shard.table_offset for shard in manifest.shards),
    )


def _described(manifest: SampleManifest) -> str:
    return ", ".join(f"{field.name}: {field.described}" for field in manifest.layout.fields)
