"""Foreign JSON, checked value by value: every error names the file and the place within."""

from __future__ import annotations

import json
import os
import re
from typing import Any, NoReturn

import torch

from ..errors import DataError
from ..wording import is_text, short
from .layout import KNOWN_NAMES

MOST = 1 << 62  # sums and products stay below: they fit into 63 bits
MOST_RECORD_BYTES = 1 << 40
_MOST_DIMENSIONS = 64


class CheckedJson:
    """Takes values out of one JSON text, which ``path`` names in errors."""

    def __init__(self, path: str) -> None:
        self._path = path

    def load(self, text: bytes) -> Any:
        try:
            return json.loads(
                text.decode("utf-8"),
                parse_constant=self._constant,
                object_pairs_hook=self._pairs,
            )
        except DataError:
            raise
        except (ValueError, RecursionError) as error:
            self.fail(f"is damaged: it is not JSON ({short(str(error))})")

    def _constant(self, name: str) -> NoReturn:
        self.fail(f"is damaged: {name} is not a number")

    def _pairs(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entry = dict(pairs)
        if len(entry) < len(pairs):
            self.fail("is damaged: it says the same thing twice")
        return entry

    def object(self, value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.fail(f"{where} is {short(value)}, not an object")
        return value

    def items(self, entry: dict[str, Any], key: str, where: str) -> list[Any]:
        value = entry.get(key)
        if not isinstance(value, list):
            self.fail(f'{where}: "{key}" is {short(value)}, not a list')
        return value

    def string(self, entry: dict[str, Any], key: str, where: str) -> str:
        value = entry.get(key)
        if not isinstance(value, str):
            self.fail(f'{where}: "{key}" is {short(value)}, not a string')
        return value

    def integer(
        self, entry: dict[str, Any], key: str, where: str, at_least: int, at_most: int = MOST
    ) -> int:
        return self.checked_integer(entry.get(key), f'{where}: "{key}"', at_least, at_most)

    def checked_integer(self, value: Any, what: str, at_least: int, at_most: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            self.fail(f"{what} is {short(value)}, not an integer")
        if not at_least <= value <= at_most:
            self.fail(f"{what} is {short(value)}, not between {at_least} and {at_most}")
        return value

    def checksum(self, entry: dict[str, Any], key: str, where: str) -> int:
        digits = self.string(entry, key, where)
        if re.fullmatch("[0-9a-f]{8}", digits) is None:
            self.fail(f"{where}: {key} is {short(digits)}, not 8 hexadecimal digits")
        return int(digits, 16)

    def file_name(self, entry: dict[str, Any], where: str) -> str:
        name = self.string(entry, "name", where)
        if name in ("", ".", "..") or "/" in name or "\0" in name or _too_long(name):
            self.fail(f"{where}: {short(name)} is not the name of a file in this folder")
        return name

    def field_name(self, entry: dict[str, Any], where: str) -> str:
        name = self.string(entry, "name", where)
        if not is_text(name):
            self.fail(f"{where}: {short(name)} cannot name a field: it is not Unicode text")
        return name

    def element(self, entry: dict[str, Any], where: str) -> tuple[str, int, bool]:
        """The dtype of a field by torch's name, its bytes, and whether it is big-endian."""
        type_name = self.string(entry, "dtype", where)
        if type_name not in KNOWN_NAMES:
            self.fail(f"{where}: dtype {short(type_name)} is not known")
        byte_order = self.string(entry, "byte_order", where)
        if byte_order not in ("little", "big"):
            self.fail(f"{where}: byte_order is {short(byte_order)}, not 'little' or 'big'")
        return type_name, getattr(torch, type_name).itemsize, byte_order == "big"

    def shape(self, entry: dict[str, Any], where: str) -> list[Any]:
        """What may be one: its extents are yet to be checked."""
        shape = self.items(entry, "shape", where)
        if len(shape) > _MOST_DIMENSIONS:
            self.fail(f"{where}: shape has {len(shape)} dimensions, more than {_MOST_DIMENSIONS}")
        return shape

    def bytes_of_shape(self, shape: list[Any], item_bytes: int, most: int, where: str) -> int:
        """The bytes of an array; of one without elements none, however long its other axes."""
        size = extents = item_bytes
        for extent in shape:
            size *= self.checked_integer(extent, f"{where}: shape", 0, MOST_RECORD_BYTES)
            extents *= max(extent, 1)
            if size > most or extents > MOST_RECORD_BYTES:
                self.fail(f"{where}: shape {short(shape)} does not fit into {most} bytes")
        return size

    def fail(self, text: str) -> NoReturn:
        advice = "" if ";" in text else "; copy the data set again, or write it anew"
        raise DataError(f"{self._path}: {text}{advice}")


def _too_long(name: str) -> bool:
    try:
        return len(os.fsencode(name)) > 255
    except UnicodeEncodeError:  # half of a surrogate pair
        return True
