"""The manifest of a folder of samples of any length: what ``docs/format.md`` specifies.

Nothing that a manifest says is believed before it is checked, and nothing is allocated by its
numbers.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from ..errors import Error
from ..wording import count_of, short, size_text
from .checked_json import MOST, MOST_RECORD_BYTES, CheckedJson
from .manifest import (
    FORMAT,
    MANIFEST_NAME,
    SAMPLES_FORMAT,
    Manifest,
    manifest_json,
    parse_manifest,
    read_manifest_text,
)
from .sample_layout import (
    MOST_FIELDS,
    MOST_OPEN_AXES,
    TABLE_ALIGNMENT,
    SampleField,
    SampleLayout,
)

VERSION = 1
ALIGNMENTS = tuple(1 << power for power in range(4, 22))  # 16 bytes to 2 MiB


@dataclass(frozen=True)
class SampleShard:
    """One file of the data set.

    Attributes:
        name: Within the folder.
        num_samples: At least 1.
        size_bytes: Of the file.
        table_offset: Where its table begins, which goes to the end of the file.
        length_bytes: Of one length in the table: 4 or 8.
        table_crc32c: Of the table.
        crc32c: Of the file.
    """

    name: str
    num_samples: int
    size_bytes: int
    table_offset: int
    length_bytes: int
    table_crc32c: int
    crc32c: int


@dataclass(frozen=True)
class SampleManifest:
    """A data set of samples of any length in one folder.

    Attributes:
        layout: The fields of a sample.
        alignment: Every sample begins at a multiple of it.
        data_bytes: Of all samples, each from its start to its end.
        largest_sample_bytes: Of the largest one.
        rms_sample_bytes: The root of the mean of their squares, rounded down: with the mean it
            gives their spread, and so that of a batch's bytes.
        largest_lengths: Per ragged field, of each open axis the greatest length in any sample.
        shards: In the order of the samples.
    """

    layout: SampleLayout
    alignment: int
    data_bytes: int
    largest_sample_bytes: int
    rms_sample_bytes: int
    largest_lengths: tuple[tuple[int, ...], ...]
    shards: tuple[SampleShard, ...]

    @property
    def num_samples(self) -> int:
        return sum(shard.num_samples for shard in self.shards)

    @property
    def counted(self) -> str:
        """How much it holds, for people."""
        return f"{count_of(self.num_samples, 'sample')} in {count_of(len(self.shards), 'shard')}"

    @property
    def described(self) -> str:
        """The same, with the size of a sample."""
        mean = f"{size_text(self.data_bytes / self.num_samples)} on average"
        samples = f"{count_of(self.num_samples, 'sample')} of {mean}"
        return f"{samples} in {count_of(len(self.shards), 'shard')}"

    def to_json(self) -> bytes:
        """The manifest as it is written, one shard a line."""
        head = {
            "format": SAMPLES_FORMAT,
            "version": VERSION,
            "num_samples": self.num_samples,
            "data_bytes": self.data_bytes,
            "largest_sample_bytes": self.largest_sample_bytes,
            "rms_sample_bytes": self.rms_sample_bytes,
            "alignment": self.alignment,
            "record_bytes": self.layout.record_bytes,
            "checksum": "crc32c",
        }
        lengths = iter(self.largest_lengths)
        fields = [
            _field_json(field, next(lengths) if field.is_ragged else None)
            for field in self.layout.fields
        ]
        return manifest_json(head, fields, [_shard_json(shard) for shard in self.shards])


def _field_json(field: SampleField, largest: tuple[int, ...] | None) -> dict[str, Any]:
    return {
        "name": field.name,
        "dtype": field.stored,
        "byte_order": "big" if field.swap_bytes else "little",
        "shape": list(field.shape),
        **({"offset": field.offset} if largest is None else {"largest_lengths": list(largest)}),
    }


def _shard_json(shard: SampleShard) -> dict[str, Any]:
    return {
        "name": shard.name,
        "num_samples": shard.num_samples,
        "size_bytes": shard.size_bytes,
        "table_offset": shard.table_offset,
        "length_bytes": shard.length_bytes,
        "table_crc32c": f"{shard.table_crc32c:08x}",
        "crc32c": f"{shard.crc32c:08x}",
    }


def read_sample_manifest(folder: str) -> SampleManifest:
    """Reads and checks the manifest of the folder.

    Raises:
        NotFoundError: There is none.
        DataError: It is damaged, of another version, or describes what cannot be; the text says
            where.
    """
    path = os.path.join(folder, MANIFEST_NAME)
    return parse_sample_manifest(read_manifest_text(path), path)


def parse_sample_manifest(text: bytes, path: str) -> SampleManifest:
    """The manifest that ``text`` is; ``path`` names it in errors."""
    return _Parser(path).manifest(text)


def read_any_manifest(folder: str) -> Manifest | SampleManifest:
    """The manifest of a folder of records or of samples; raises as ``read_sample_manifest``."""
    path = os.path.join(folder, MANIFEST_NAME)
    text = read_manifest_text(path)
    if _format_of(text) == SAMPLES_FORMAT:
        return parse_sample_manifest(text, path)
    return parse_manifest(text, path)


def _format_of(text: bytes) -> Any:
    try:
        root = CheckedJson("").load(text)
    except Error:
        return None
    return root.get("format") if isinstance(root, dict) else None


class _Parser(CheckedJson):
    """Checks one manifest."""

    def manifest(self, text: bytes) -> SampleManifest:
        root, where = self.object(self.load(text), "the manifest"), "the manifest"
        self._check_format(root)
        alignment = self.integer(root, "alignment", where, ALIGNMENTS[0], ALIGNMENTS[-1])
        if alignment not in ALIGNMENTS:
            self.fail(f'"alignment" is {alignment}, not a power of two')
        layout, largest_lengths = self._layout(root, where)
        shards = tuple(
            self._shard(item, f"shards[{number}]", layout)
            for number, item in enumerate(self.items(root, "shards", where))
        )
        if len({shard.name for shard in shards}) < len(shards):
            self.fail("two shards have the same name")
        manifest = SampleManifest(
            layout,
            alignment,
            self.integer(root, "data_bytes", where, 0),
            self.integer(root, "largest_sample_bytes", where, layout.record_bytes),
            self.integer(root, "rms_sample_bytes", where, 0),
            largest_lengths,
            shards,
        )
        self._check_sums(manifest, self.integer(root, "num_samples", where, 1))
        return manifest

    def _check_format(self, root: dict[str, Any]) -> None:
        if root.get("format") == FORMAT:
            self.fail(
                "the folder holds records of one size, as RecordWriter writes them; RecordDataset "
                "reads it"
            )
        if root.get("format") != SAMPLES_FORMAT:
            self.fail(
                f'"format" is {short(root.get("format"))}, not {SAMPLES_FORMAT!r}: it is another '
                "program's; name a folder that SampleWriter wrote"
            )
        version = self.integer(root, "version", "the manifest", 0)
        if version != VERSION:
            self.fail(f"version {version} is not known, only {VERSION}; update torch_s3io")
        if root.get("checksum") != "crc32c":
            self.fail(f"\"checksum\" is {short(root.get('checksum'))}, not 'crc32c'")

    def _check_sums(self, manifest: SampleManifest, num_samples: int) -> None:
        if manifest.num_samples != num_samples:
            self.fail(f'"num_samples" is {num_samples}, but the shards have {manifest.num_samples}')
        data, largest = manifest.data_bytes, manifest.largest_sample_bytes
        most = sum(shard.table_offset for shard in manifest.shards)
        if most > MOST or data > most:
            self.fail(f'"data_bytes" is {data}, but the samples of all shards take at most {most}')
        if not largest <= data <= largest * num_samples:
            self.fail(
                f'"largest_sample_bytes" is {largest}, which {num_samples} samples with {data} '
                "bytes cannot have"
            )
        if not data // num_samples <= manifest.rms_sample_bytes <= largest:
            self.fail(
                f'"rms_sample_bytes" is {manifest.rms_sample_bytes}, not between the mean and the '
                "largest sample"
            )

    def _layout(
        self, root: dict[str, Any], where: str
    ) -> tuple[SampleLayout, tuple[tuple[int, ...], ...]]:
        record_bytes = self.integer(root, "record_bytes", where, 0, MOST_RECORD_BYTES)
        items = self.items(root, "fields", where)
        if not 0 < len(items) <= MOST_FIELDS:
            self.fail(f'"fields" has {len(items)}, not between 1 and {MOST_FIELDS}')
        fields, largest_lengths = [], []
        for number, item in enumerate(items):
            field, largest = self._field(item, f"fields[{number}]", record_bytes)
            fields.append(field)
            if field.is_ragged:
                largest_lengths.append(largest)
        names = {field.name for field in fields}
        if len(names) < len(fields) or "" in names:
            self.fail("fields need names of their own")
        return SampleLayout(tuple(fields), record_bytes), tuple(largest_lengths)

    def _field(
        self, item: Any, where: str, record_bytes: int
    ) -> tuple[SampleField, tuple[int, ...]]:
        entry = self.object(item, where)
        name = self.field_name(entry, where)
        stored, element_bytes, is_big = self.element(entry, where)
        shape = self.shape(entry, where)
        closed = [extent for extent in shape if extent is not None]
        num_open = len(shape) - len(closed)
        if num_open > MOST_OPEN_AXES:
            self.fail(f"{where}: {num_open} axes are open, more than {MOST_OPEN_AXES}")
        most = MOST_RECORD_BYTES if num_open else record_bytes
        size = self.bytes_of_shape(closed, element_bytes, most, where)
        if size == 0:
            self.fail(f"{where}: shape {short(shape)} has no elements")
        if num_open:
            return SampleField(name, stored, is_big, tuple(shape), -1), self._lengths(
                entry, where, num_open
            )
        offset = self.integer(entry, "offset", where, 0)
        if offset % element_bytes or offset + size > record_bytes:
            self.fail(
                f"{where}: its bytes {offset} to {offset + size} are not within a record of "
                f"{record_bytes} bytes, at a multiple of {element_bytes}"
            )
        return SampleField(name, stored, is_big, tuple(shape), offset), ()

    def _lengths(self, entry: dict[str, Any], where: str, count: int) -> tuple[int, ...]:
        lengths = self.items(entry, "largest_lengths", where)
        if len(lengths) != count:
            self.fail(f'{where}: "largest_lengths" has {len(lengths)} entries, not {count}')
        what = f'{where}: "largest_lengths"'
        return tuple(self.checked_integer(length, what, 0, MOST) for length in lengths)

    def _shard(self, item: Any, where: str, layout: SampleLayout) -> SampleShard:
        entry = self.object(item, where)
        shard = SampleShard(
            self.file_name(entry, where),
            self.integer(entry, "num_samples", where, 1),
            self.integer(entry, "size_bytes", where, 1),
            self.integer(entry, "table_offset", where, 0),
            self.integer(entry, "length_bytes", where, 4, 8),
            self.checksum(entry, "table_crc32c", where),
            self.checksum(entry, "crc32c", where),
        )
        if shard.length_bytes not in (4, 8):
            self.fail(f'{where}: "length_bytes" is {shard.length_bytes}, not 4 or 8')
        if shard.table_offset % TABLE_ALIGNMENT:
            self.fail(
                f'{where}: "table_offset" is {shard.table_offset}, not a multiple of '
                f"{TABLE_ALIGNMENT}"
            )
        table = layout.table_bytes(shard.num_samples, shard.length_bytes)
        if shard.table_offset + table != shard.size_bytes:
            self.fail(
                f"{where}: a table of {shard.num_samples} samples at byte {shard.table_offset} "
                f"ends at {shard.table_offset + table}, not at {shard.size_bytes}"
            )
        return shard
