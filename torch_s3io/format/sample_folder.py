"""The own format: folders that a SampleWriter wrote."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

from ..errors import ConfigError, DataError
from ..store.store import FileOrder, Found
from ..store.stores import store_of
from ..wording import short
from .files import inspect_again
from .objects import Shard, shard_of
from .paths import Paths, manifest_folders
from .sample_format import SampleFormat, Samples
from .sample_records import SampleSizes, TablePlace
from .sample_table import load_table
from .samples import SampleManifest, read_sample_manifest


def _open(paths: Paths, order: FileOrder) -> Samples:
    """The samples of these folders, one after the other.

    Raises:
        NotFoundError, AccessError: A manifest or a shard is missing, or may not be read.
        DataError: One is damaged, or not what the manifest says.
        ConfigError: The folders have different fields.
    """
    folders = manifest_folders(paths, order)
    if not folders:
        raise ConfigError(
            f"{short(paths)}: is no folder with a manifest.json, as SampleWriter writes it"
        )
    manifests = [read_sample_manifest(folder) for folder in folders]
    layout = manifests[0].layout
    for folder, manifest in zip(folders, manifests, strict=True):
        if manifest.layout != layout:
            raise ConfigError(
                f"{folder}: has {_described(manifest)}, but {folders[0]} has "
                f"{_described(manifests[0])}; read them as data sets of their own"
            )
    shards: list[Shard] = []
    places: list[TablePlace] = []
    for folder, manifest in zip(folders, manifests, strict=True):
        for shard, place in _objects(folder, manifest):
            shards.append(shard)
            places.append(place)
    return Samples(layout, shards, places, sizes=[_sizes(manifest) for manifest in manifests])


def _objects(folder: str, manifest: SampleManifest) -> Iterator[tuple[Shard, TablePlace]]:
    top = store_of(folder).absolute(folder)
    files = [Found(os.path.join(top, entry.name), entry.name) for entry in manifest.shards]
    infos = inspect_again([file.path for file in files])
    for entry, file, info in zip(manifest.shards, files, infos, strict=True):
        if info.size_bytes != entry.size_bytes:
            raise DataError(
                f"{file.path}: has {info.size_bytes} bytes, but the manifest says "
                f"{entry.size_bytes}: it was cut off or appended to; copy it again, or write the "
                "data set anew"
            )
        load = partial(load_table, file.path, entry, manifest)
        place = TablePlace(load, entry.table_offset, entry.table_crc32c)
        yield shard_of(file, info, 0, entry.num_samples), place


def _sizes(manifest: SampleManifest) -> SampleSizes:
    return SampleSizes(
        manifest.num_samples,
        manifest.data_bytes,
        manifest.largest_sample_bytes,
        sum(shard.table_offset for shard in manifest.shards),
    )


def _described(manifest: SampleManifest) -> str:
    return ", ".join(f"{field.name}: {field.described}" for field in manifest.layout.fields)


OWN_FORMAT = SampleFormat(
    "samples", matches=lambda paths, order: bool(manifest_folders(paths, order)), open=_open
)
