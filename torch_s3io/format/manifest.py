"""The manifest of a folder of records: what ``docs/format.md`` specifies, read from any hands.

Nothing that a manifest says is believed before it is checked, and nothing is allocated by its
numbers.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import Any

from ..errors import DataError, NotFoundError
from ..store.stores import store_of
from ..wording import count_of, short
from .checked_json import MOST_RECORD_BYTES, CheckedJson
from .layout import Field

MANIFEST_NAME = "manifest.json"
FORMAT = "torch_s3io.records"
SAMPLES_FORMAT = "torch_s3io.samples"  # of samples.py
VERSION = 1

_MOST_MANIFEST_BYTES = 256 << 20
_SHARD_NAME = re.compile(r"(?:records|samples)-[0-9a-f]{8}-[0-9]{5,}\.bin")


@dataclass(frozen=True)
class ShardEntry:
    """One file of the data set.

    Attributes:
        name: Within the folder.
        num_records: At least 1.
        size_bytes: ``num_records * stride_bytes``.
        crc32c: Of the file.
    """

    name: str
    num_records: int
    size_bytes: int
    crc32c: int


@dataclass(frozen=True)
class Manifest:
    """A data set of fixed-size records in one folder.

    Attributes:
        fields: Of a record, as stored; a single one without a name for a plain dtype.
        record_bytes: Of one record.
        stride_bytes: From one record's start to the next one's; the bytes in between are zeros.
        shards: In the order of the records.
    """

    fields: tuple[Field, ...]
    record_bytes: int
    stride_bytes: int
    shards: tuple[ShardEntry, ...]

    @property
    def num_records(self) -> int:
        return sum(shard.num_records for shard in self.shards)

    @property
    def counted(self) -> str:
        """How much it holds, for people."""
        return f"{count_of(self.num_records, 'record')} in {count_of(len(self.shards), 'shard')}"

    @property
    def described(self) -> str:
        """The same, with the size of a record."""
        records = f"{count_of(self.num_records, 'record')} of {self.record_bytes} bytes"
        return f"{records} in {count_of(len(self.shards), 'shard')}"

    def to_json(self) -> bytes:
        """The manifest as it is written, one shard a line."""
        head = {
            "format": FORMAT,
            "version": VERSION,
            "num_records": self.num_records,
            "record_bytes": self.record_bytes,
            "stride_bytes": self.stride_bytes,
            "checksum": "crc32c",
        }
        fields = [_field_json(field) for field in self.fields]
        return manifest_json(head, fields, [_shard_json(shard) for shard in self.shards])


def manifest_json(
    head: dict[str, Any], fields: list[dict[str, Any]], shards: list[dict[str, Any]]
) -> bytes:
    """The text of a manifest: one member, field or shard a line."""
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    lines += [_json_list("fields", fields), _json_list("shards", shards)]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _json_list(name: str, items: list[dict[str, Any]]) -> str:
    body = ",\n".join(f"    {json.dumps(item)}" for item in items)
    return f'  "{name}": [\n{body}\n  ]'


def _field_json(field: Field) -> dict[str, Any]:
    return {
        "name": field.name,
        "dtype": field.stored,
        "byte_order": "big" if field.swap_bytes else "little",
        "offset": field.offset,
        "shape": list(field.shape),
    }


def _shard_json(shard: ShardEntry) -> dict[str, Any]:
    return {
        "name": shard.name,
        "num_records": shard.num_records,
        "size_bytes": shard.size_bytes,
        "crc32c": f"{shard.crc32c:08x}",
    }


def shard_line(shard: ShardEntry) -> bytes:
    """A shard as a line of JSON."""
    return (json.dumps(_shard_json(shard)) + "\n").encode()


def parse_shard_line(line: bytes, path: str, stride_bytes: int) -> ShardEntry:
    """What ``shard_line`` wrote, checked like a shard of a manifest.

    Raises:
        DataError: Something else.
    """
    return _Parser(path).shard_line(line, stride_bytes)


def is_shard_name(name: str) -> bool:
    """Whether a file of this name is a shard that a RecordWriter or SampleWriter wrote."""
    return _SHARD_NAME.fullmatch(name) is not None


def has_manifest(folder: str) -> bool:
    return store_of(folder).has(os.path.join(folder, MANIFEST_NAME))


def has_own_manifest(folder: str) -> bool:
    """Whether it has one of ours, be it damaged or of another version; not another program's."""
    try:
        text = read_manifest_text(os.path.join(folder, MANIFEST_NAME))
    except NotFoundError:
        return False
    return any(name.encode() in text for name in (FORMAT, SAMPLES_FORMAT))


def read_manifest(folder: str) -> Manifest:
    """Reads and checks the manifest of the folder.

    Raises:
        NotFoundError: There is none.
        DataError: It is damaged, of another version, or describes what cannot be; the text says
            where.
    """
    path = os.path.join(folder, MANIFEST_NAME)
    return parse_manifest(read_manifest_text(path), path)


def parse_manifest(text: bytes, path: str) -> Manifest:
    """The manifest that ``text`` is; ``path`` names it in errors."""
    return _Parser(path).manifest(text)


def read_manifest_text(path: str) -> bytes:
    """The bytes of a file that may be a manifest: a regular one, of a size that one has."""
    try:
        text = store_of(path).read(path, 0, _MOST_MANIFEST_BYTES + 1)
    except NotFoundError:
        raise NotFoundError(
            f"{path}: there is no manifest: the folder is none that RecordWriter or pack wrote, "
            "or its writer was interrupted"
        ) from None
    if len(text) > _MOST_MANIFEST_BYTES:
        raise DataError(
            f"{path}: has more than {_MOST_MANIFEST_BYTES} bytes, more than a manifest has"
        )
    return text.tobytes()


class _Parser(CheckedJson):
    """Checks one manifest."""

    def manifest(self, text: bytes) -> Manifest:
        root = self.object(self.load(text), "the manifest")
        self._check_format(root)
        record_bytes = self.integer(root, "record_bytes", "the manifest", 1, MOST_RECORD_BYTES)
        stride = self.integer(root, "stride_bytes", "the manifest", record_bytes, MOST_RECORD_BYTES)
        fields = tuple(
            self._field(item, f"fields[{number}]", record_bytes)
            for number, item in enumerate(self.items(root, "fields", "the manifest"))
        )
        names = [field.name for field in fields]
        if not fields or len(set(names)) < len(names) or ("" in names and len(names) > 1):
            self.fail("fields need names of their own, or be a single one without a name")
        shards = tuple(
            self._shard(item, f"shards[{number}]", stride)
            for number, item in enumerate(self.items(root, "shards", "the manifest"))
        )
        if len({shard.name for shard in shards}) < len(shards):
            self.fail("two shards have the same name")
        manifest = Manifest(fields, record_bytes, stride, shards)
        total = self.integer(root, "num_records", "the manifest", 1)
        if manifest.num_records != total:
            self.fail(f'"num_records" is {total}, but the shards have {manifest.num_records}')
        return manifest

    def _check_format(self, root: dict[str, Any]) -> None:
        if root.get("format") == SAMPLES_FORMAT:
            self.fail(
                "the folder holds samples of any length, as SampleWriter writes them; "
                "SampleDataset reads it"
            )
        if root.get("format") != FORMAT:
            self.fail(
                f'"format" is {short(root.get("format"))}, not {FORMAT!r}: it is another '
                "program's; "
                "name the files of records, and say dtype= and shape="
            )
        version = self.integer(root, "version", "the manifest", 0)
        if version != VERSION:
            self.fail(f"version {version} is not known, only {VERSION}; update torch_s3io")
        if root.get("checksum") != "crc32c":
            self.fail(f"\"checksum\" is {short(root.get('checksum'))}, not 'crc32c'")

    def shard_line(self, line: bytes, stride_bytes: int) -> ShardEntry:
        return self._shard(self.load(line), "the line", stride_bytes)

    def _field(self, item: Any, where: str, record_bytes: int) -> Field:
        entry = self.object(item, where)
        name = self.field_name(entry, where)
        type_name, item_bytes, is_big = self.element(entry, where)
        offset = self.integer(entry, "offset", where, 0)
        shape = self.shape(entry, where)
        end = offset + self.bytes_of_shape(shape, item_bytes, record_bytes, where)
        if end > record_bytes:
            self.fail(f"{where}: ends at byte {end} of {record_bytes}")
        return Field(name, type_name, type_name, is_big, offset, tuple(shape))

    def _shard(self, item: Any, where: str, stride_bytes: int) -> ShardEntry:
        entry = self.object(item, where)
        name = self.file_name(entry, where)
        num_records = self.integer(entry, "num_records", where, 1)
        size_bytes = self.integer(entry, "size_bytes", where, 1)
        if num_records * stride_bytes != size_bytes:
            self.fail(f"{where}: {num_records} records take other than {size_bytes} bytes")
        return ShardEntry(name, num_records, size_bytes, self.checksum(entry, "crc32c", where))
