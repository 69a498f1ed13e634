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
import torch

from ..errors import AccessError, ConfigError, DataError, ReadError
from .layout import checked_dtype, is_torch_only, make_layout, name_of

_MAGIC = b"\x93NUMPY"
_MAX_HEADER_BYTES = 1 << 20
_FLOAT8_E5M2 = "<f1"  # of ml_dtypes


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
        dtype = np.lib.format.descr_to_dtype(_readable(descr))
    except (TypeError, ValueError, LookupError, SyntaxError) as error:
        raise DataError(f"{path}: invalid dtype {descr!r} in the .npy header: {error}") from None
    if dtype.hasobject:
        raise DataError(f"{path}: holds Python objects, which cannot be read as tensors")
    if fortran_order and len(shape) > 1:
        raise DataError(
            f"{path}: is in Fortran order, so its records are not contiguous; "
            "save numpy.ascontiguousarray(array) instead"
        )
    return NpyHeader(dtype, shape, header_bytes)


def npy_dtype(path: str, header: NpyHeader, given: Any) -> Any:
    """Of the elements: as given, else as the header says.

    Headers cannot name what numpy lacks: bfloat16 and float8 are saved as bytes of no type (V2,
    V1), or by people as integers of the same size.

    Raises:
        ConfigError: A dtype is needed, or the given one does not fit the header.
    """
    if given is not None:
        if not _may_hold(header.dtype, given):
            raise ConfigError(
                f"{path}: holds {header.dtype}, which dtype={given} does not fit; leave dtype= "
                "out, which is for what a header cannot name: bfloat16 and float8"
            )
        return given
    try:
        make_layout(header.dtype)
    except ConfigError as error:
        raise ConfigError(f"{path}: {_explain(header, error)}") from None
    return header.dtype


def _explain(header: NpyHeader, error: ConfigError) -> str:
    example = {1: "float8_e4m3fn", 2: "bfloat16"}.get(header.dtype.itemsize)
    if header.dtype.kind != "V" or header.dtype.names is not None or example is None:
        return (
            f"{error}. RecordDataset(path, dtype=D, shape=S, header_bytes={header.header_bytes}) "
            "reads the array's bytes as you say"
        )
    return (
        f"its header names no type, only bytes of a size ({header.dtype.str[1:]}): numpy saves so "
        "what it lacks, such as bfloat16 and float8 of JAX and ml_dtypes. Say what it is: "
        f"dtype=torch.{example}, or pack --dtype {example}"
    )


def _may_hold(stored: np.dtype[Any], given: Any) -> bool:
    """Whether values that are stored so may be of the given dtype."""
    dtype = checked_dtype(given)
    if isinstance(dtype, torch.dtype):
        dtype = np.dtype(f"V{dtype.itemsize}" if is_torch_only(dtype) else name_of(dtype))
    return _fits(stored, dtype)


def _fits(stored: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    if stored.itemsize != wanted.itemsize:
        return False
    if stored.fields or wanted.fields:
        if stored.fields is None or wanted.fields is None or stored.names != wanted.names:
            return False
        pairs = [(stored.fields[name], wanted.fields[name]) for name in stored.fields]
        return all(ours[1] == theirs[1] and _fits(ours[0], theirs[0]) for ours, theirs in pairs)
    if stored.subdtype or wanted.subdtype:
        return stored.shape == wanted.shape and _fits(stored.base, wanted.base)
    is_untyped = stored.kind == "V" or (stored.kind in "ui" and stored.isnative)
    return is_untyped or stored == wanted


def _readable(descr: Any) -> Any:
    """The header's text for a dtype, as bytes where numpy writes one that it cannot read."""
    if isinstance(descr, list):
        return [
            (item[0], _readable(item[1]), *item[2:]) if type(item) is tuple and item[1:] else item
            for item in descr
        ]
    return "|V1" if isinstance(descr, str) and descr == _FLOAT8_E5M2 else descr


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
