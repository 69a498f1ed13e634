"""Folders of samples: a manifest and a table that are accepted are consistent with each other.

An input is the manifest, a zero byte, and the tables of its shards, one after the other; their
checksums are made right, so that what lies behind them is reached. A manifest that keeps another
one is refused in any case.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from engine.checks import naming

from torch_s3io import _C
from torch_s3io.format.manifest import MANIFEST_NAME
from torch_s3io.format.sample_table import SampleTable, read_table, samples_in
from torch_s3io.format.samples import SampleManifest, SampleShard, parse_sample_manifest
from torch_s3io.wording import printable

TOKENS = [
    *(b'"format"', b'"torch_s3io.samples"', b'"version"', b'"num_samples"', b'"record_bytes"'),
    *(b'"data_bytes"', b'"largest_sample_bytes"', b'"rms_sample_bytes"', b'"alignment"'),
    *(b'"checksum"', b'"crc32c"', b'"fields"', b'"shards"', b'"name"', b'"dtype"', b'"shape"'),
    *(b'"byte_order"', b'"big"', b'"little"', b'"offset"', b'"largest_lengths"', b"null"),
    *(b'"size_bytes"', b'"table_offset"', b'"length_bytes"', b'"table_crc32c"', b'"00000000"'),
    *(b'"uint8"', b'"float32"', b'"bfloat16"', b'"complex128"', b'"bool"', b"4096", b"8", b"4"),
    *(b"\0" * 8, b"\x10" + b"\0" * 7, b"\xff" * 8, b"\xff" * 4, b"\0\0\0\x40" * 2),
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\ud800", b"NaN", b"1e400", b"true"),
]


def make(folder: Path) -> Callable[[bytes], None]:
    path = folder / MANIFEST_NAME

    def read(data: bytes) -> None:
        text, _, tables = data.partition(b"\0")
        with naming(path):
            manifest = parse_sample_manifest(text, str(path))
        assert parse_sample_manifest(manifest.to_json(), str(path)) == manifest
        for shard in manifest.shards:
            size = shard.size_bytes - shard.table_offset
            table, tables = tables[:size], tables[size:]
            entry = replace(shard, table_crc32c=_C.crc32c(table))
            shard_path = str(folder / shard.name)
            with naming(Path(printable(shard_path))):
                found = read_table(table, entry, manifest, shard_path)
            _check(found, entry, manifest)

    return read


def _check(table: SampleTable, shard: SampleShard, manifest: SampleManifest) -> None:
    """Number by number, in Python's integers."""
    layout, last_end = manifest.layout, 0
    assert table.crc32c is not None
    assert table.num_samples == len(table.crc32c) == shard.num_samples
    for number, (start, end) in enumerate(samples_in(table, layout)):
        size = layout.record_bytes
        for field, lengths in zip(layout.ragged, table.lengths, strict=True):
            given = lengths[number].tolist()
            shape = [given.pop(0) if extent is None else extent for extent in field.shape]
            size = -(-size // field.alignment) * field.alignment
            size += math.prod(shape) * field.element_bytes
        assert end == start + size
        assert size <= manifest.largest_sample_bytes
        assert last_end <= start
        assert start % manifest.alignment == 0
        last_end = end
    assert last_end <= shard.table_offset
