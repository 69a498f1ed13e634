"""The manifest of a folder of records: what ``docs/format.md`` specifies, read from any hands.

Nothing that a manifest says is believed before it is checked, and nothing is allocated by its
numbers.
"""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import dataclass
from typing import Any, NoReturn

import torch

from ..errors import AccessError, DataError, NotFoundError, ReadError
from ..wording import is_text, short
from .layout import KNOWN_NAMES, Field

MANIFEST_NAME = "manifest.json"
FORMAT = "torch_s3io.records"
VERSION = 1

_MOST_MANIFEST_BYTES = 256 << 20
_MOST_RECORD_BYTES = 1 << 40
_MOST_DIMENSIONS = 64
_MOST = 1 << 62  # sums and products stay below: they fit into 63 bits
_SHARD_NAME = re.compile(r"records-[0-9a-f]{8}-[0-9]{5,}\.bin")


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
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
        lines.append(_json_list("fields", [_field_json(field) for field in self.fields]))
        lines.append(_json_list("shards", [_shard_json(shard) for shard in self.shards]))
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
    """Whether a file of this name is a shard that a RecordWriter wrote."""
    return _SHARD_NAME.fullmatch(name) is not None


def has_manifest(folder: str) -> bool:
    return os.path.lexists(os.path.join(folder, MANIFEST_NAME))


def has_own_manifest(folder: str) -> bool:
    """Whether it has one of ours, be it damaged or of another version; not another program's."""
    try:
        return FORMAT.encode() in _read(os.path.join(folder, MANIFEST_NAME))
    except NotFoundError:
        return False


def read_manifest(folder: str) -> Manifest:
    """Reads and checks the manifest of the folder.

    Raises:
        NotFoundError: There is none.
        DataError: It is damaged, of another version, or describes what cannot be; the text says
            where.
    """
    path = os.path.join(folder, MANIFEST_NAME)
    return parse_manifest(_read(path), path)


def parse_manifest(text: bytes, path: str) -> Manifest:
    """The manifest that ``text`` is; ``path`` names it in errors."""
    return _Parser(path).manifest(text)


def _read(path: str) -> bytes:
    try:
        # Opening a FIFO must not wait for somebody to write into it.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as f:
            status = os.fstat(f.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise DataError(f"{path}: is not a regular file")
            if status.st_size > _MOST_MANIFEST_BYTES:
                raise DataError(f"{path}: has {status.st_size} bytes, more than a manifest has")
            return f.read(_MOST_MANIFEST_BYTES + 1)
    except FileNotFoundError:
        raise NotFoundError(
            f"{path}: there is no manifest: the folder is none that RecordWriter or pack wrote, "
            "or its "
            "writer was interrupted"
        ) from None
    except PermissionError as error:
        raise AccessError(f"{path}: cannot open: {error.strerror}") from None
    except OSError as error:
        raise ReadError(f"{path}: cannot read the manifest: {error.strerror}") from None


class _Parser:
    """Checks one manifest; every error names its path and the place within."""

    def __init__(self, path: str) -> None:
        self._path = path

    def manifest(self, text: bytes) -> Manifest:
        root = self._object(self._load(text), "the manifest")
        if root.get("format") != FORMAT:
            self._fail(
                f'"format" is {short(root.get("format"))}, not {FORMAT!r}: it is another '
                "program's; "
                "name the files of records, and say dtype= and shape="
            )
        version = self._integer(root, "version", "the manifest", 0)
        if version != VERSION:
            self._fail(f"version {version} is not known, only {VERSION}; update torch_s3io")
        if root.get("checksum") != "crc32c":
            self._fail(f"\"checksum\" is {short(root.get('checksum'))}, not 'crc32c'")
        record_bytes = self._integer(root, "record_bytes", "the manifest", 1, _MOST_RECORD_BYTES)
        stride = self._integer(
            root, "stride_bytes", "the manifest", record_bytes, _MOST_RECORD_BYTES
        )
        fields = tuple(
            self._field(item, f"fields[{number}]", record_bytes)
            for number, item in enumerate(self._list(root, "fields", "the manifest"))
        )
        names = [field.name for field in fields]
        if not fields or len(set(names)) < len(names) or ("" in names and len(names) > 1):
            self._fail("fields need names of their own, or be a single one without a name")
        shards = tuple(
            self._shard(item, f"shards[{number}]", stride)
            for number, item in enumerate(self._list(root, "shards", "the manifest"))
        )
        if len({shard.name for shard in shards}) < len(shards):
            self._fail("two shards have the same name")
        manifest = Manifest(fields, record_bytes, stride, shards)
        total = self._integer(root, "num_records", "the manifest", 1)
        if manifest.num_records != total:
            self._fail(f'"num_records" is {total}, but the shards have {manifest.num_records}')
        return manifest

    def shard_line(self, line: bytes, stride_bytes: int) -> ShardEntry:
        return self._shard(self._load(line), "the line", stride_bytes)

    def _field(self, item: Any, where: str, record_bytes: int) -> Field:
        entry = self._object(item, where)
        name = self._string(entry, "name", where)
        if not is_text(name):
            self._fail(f"{where}: {short(name)} cannot name a field: it is not Unicode text")
        type_name = self._string(entry, "dtype", where)
        if type_name not in KNOWN_NAMES:
            self._fail(f"{where}: dtype {short(type_name)} is not known")
        item_bytes = getattr(torch, type_name).itemsize
        byte_order = self._string(entry, "byte_order", where)
        if byte_order not in ("little", "big"):
            self._fail(f"{where}: byte_order is {short(byte_order)}, not 'little' or 'big'")
        offset = self._integer(entry, "offset", where, 0)
        shape = self._list(entry, "shape", where)
        if len(shape) > _MOST_DIMENSIONS:
            self._fail(f"{where}: shape has {len(shape)} dimensions, more than {_MOST_DIMENSIONS}")
        end = extents = item_bytes
        for extent in shape:
            end *= self._checked_integer(extent, f"{where}: shape", 0, _MOST_RECORD_BYTES)
            extents *= max(extent, 1)
            if end > record_bytes or extents > _MOST_RECORD_BYTES:
                self._fail(f"{where}: shape {short(shape)} does not fit into {record_bytes} bytes")
        if offset + end > record_bytes:
            self._fail(f"{where}: ends at byte {offset + end} of {record_bytes}")
        return Field(name, type_name, type_name, byte_order == "big", offset, tuple(shape))

    def _shard(self, item: Any, where: str, stride_bytes: int) -> ShardEntry:
        entry = self._object(item, where)
        name = self._string(entry, "name", where)
        if name in ("", ".", "..") or "/" in name or "\0" in name or _too_long(name):
            self._fail(f"{where}: {short(name)} is not the name of a file in this folder")
        num_records = self._integer(entry, "num_records", where, 1)
        size_bytes = self._integer(entry, "size_bytes", where, 1)
        if num_records * stride_bytes != size_bytes:
            self._fail(f"{where}: {num_records} records take other than {size_bytes} bytes")
        digits = self._string(entry, "crc32c", where)
        if re.fullmatch("[0-9a-f]{8}", digits) is None:
            self._fail(f"{where}: crc32c is {short(digits)}, not 8 hexadecimal digits")
        return ShardEntry(name, num_records, size_bytes, int(digits, 16))

    def _load(self, text: bytes) -> Any:
        try:
            return json.loads(
                text.decode("utf-8"),
                parse_constant=self._constant,
                object_pairs_hook=self._pairs,
            )
        except DataError:
            raise
        except (ValueError, RecursionError) as error:
            self._fail(f"is damaged: it is not JSON ({short(str(error))})")

    def _constant(self, name: str) -> NoReturn:
        self._fail(f"is damaged: {name} is not a number")

    def _pairs(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entry = dict(pairs)
        if len(entry) < len(pairs):
            self._fail("is damaged: it says the same thing twice")
        return entry

    def _object(self, value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            self._fail(f"{where} is {short(value)}, not an object")
        return value

    def _list(self, entry: dict[str, Any], key: str, where: str) -> list[Any]:
        value = entry.get(key)
        if not isinstance(value, list):
            self._fail(f'{where}: "{key}" is {short(value)}, not a list')
        return value

    def _string(self, entry: dict[str, Any], key: str, where: str) -> str:
        value = entry.get(key)
        if not isinstance(value, str):
            self._fail(f'{where}: "{key}" is {short(value)}, not a string')
        return value

    def _integer(
        self, entry: dict[str, Any], key: str, where: str, at_least: int, at_most: int = _MOST
    ) -> int:
        return self._checked_integer(entry.get(key), f'{where}: "{key}"', at_least, at_most)

    def _checked_integer(self, value: Any, what: str, at_least: int, at_most: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            self._fail(f"{what} is {short(value)}, not an integer")
        if not at_least <= value <= at_most:
            self._fail(f"{what} is {short(value)}, not between {at_least} and {at_most}")
        return value

    def _fail(self, text: str) -> NoReturn:
        advice = "" if ";" in text else "; copy the data set again, or write it anew"
        raise DataError(f"{self._path}: {text}{advice}")


def _too_long(name: str) -> bool:
    try:
        return len(os.fsencode(name)) > 255
    except UnicodeEncodeError:  # half of a surrogate pair
        return True
