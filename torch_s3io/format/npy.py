"""The header of ``.npy`` files, versions 1 to 3.

Format: NEP 1, https://numpy.org/neps/nep-0001-npy-format.html, and numpy.lib.format. A magic string
of 6 bytes, two version bytes, the header's length (2 bytes little-endian in version 1, else 4),
then the literal of a dict with the keys ``descr``, ``fortran_order`` and ``shape``.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from ..errors import AccessError, DataError, ReadError

_MAGIC = b"\x93NUMPY"
_MAX_HEADER_BYTES = 1 << 20


@dataclass(frozen=True)
class NpyHeader:
    """What a ``.npy`` file holds: an array of ``shape`` and ``dtype`` after ``header_bytes``
    bytes."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    header_bytes: int


def read_npy_header(path: str) -> NpyHeader:
    """Reads and checks the header of the array in the file ``path``.

    Raises:
        DataError: Not a ``.npy`` file, a damaged header, Fortran order, or Python objects.
    """
    try:
        with open(path, "rb") as file:
            text, header_bytes = _header_text(file, path)
    except PermissionError as error:
        raise AccessError(f"{path}: cannot open: {error.strerror}") from None
    except OSError as error:
        raise ReadError(f"{path}: cannot read the .npy header: {error.strerror}") from None
    descr, fortran_order, shape = _parse(text, path)
    try:
        dtype = np.lib.format.descr_to_dtype(descr)
    except (TypeError, ValueError, LookupError) as error:
        raise DataError(f"{path}: invalid dtype {descr!r} in the .npy header: {error}") from None
    if dtype.hasobject:
        raise DataError(f"{path}: holds Python objects, which cannot be read as tensors")
    if fortran_order and len(shape) > 1:
        raise DataError(
            f"{path}: is in Fortran order, so its records are not contiguous; "
            "save numpy.ascontiguousarray(array) instead"
        )
    return NpyHeader(dtype, shape, header_bytes)


def _header_text(file: BinaryIO, path: str) -> tuple[str, int]:
    prefix = file.read(8)
    if len(prefix) < 8 or not prefix.startswith(_MAGIC):
        raise DataError(f"{path}: is not a .npy file (it does not begin with {_MAGIC!r})")
    major, minor = prefix[6], prefix[7]
    if major not in (1, 2, 3) or minor != 0:
        raise DataError(f"{path}: .npy version {major}.{minor} is not known")
    length_bytes = 2 if major == 1 else 4
    length = int.from_bytes(file.read(length_bytes), "little")
    if length > _MAX_HEADER_BYTES:
        raise DataError(f"{path}: the .npy header claims {length} bytes, more than a header has")
    raw = file.read(length)
    if len(raw) < length:
        raise DataError(f"{path}: ends within its .npy header")
    try:
        text = raw.decode("utf-8" if major == 3 else "latin-1")
    except UnicodeDecodeError:
        raise DataError(f"{path}: the .npy header is not text") from None
    return text, 8 + length_bytes + length


def _parse(text: str, path: str) -> tuple[Any, bool, tuple[int, ...]]:
    try:
        header = ast.literal_eval(text.strip())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        header = None
    if not isinstance(header, dict) or set(header) != {"descr", "fortran_order", "shape"}:
        raise DataError(f"{path}: damaged .npy header: {text[:200]!r}")
    shape, fortran_order = header["shape"], header["fortran_order"]
    is_shape = isinstance(shape, tuple) and all(
        isinstance(extent, int) and not isinstance(extent, bool) and 0 <= extent < 1 << 62
        for extent in shape
    )
    if not is_shape or not isinstance(fortran_order, bool):
        raise DataError(f"{path}: damaged .npy header: {text[:200]!r}")
    return header["descr"], fortran_order, shape
