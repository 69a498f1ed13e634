"""The header of ``.npy`` files, versions 1 to 3.

Format: NEP 1, https://numpy.org/neps/nep-0001-npy-format.html, and numpy.lib.format. A magic string
of 6 bytes, two version bytes, the header's length (2 bytes little-endian in version 1, else 4),
then the literal of a dict with the keys ``descr``, ``fortran_order`` and ``shape``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import ConfigError, DataError, Error
from ..store.stores import store_of
from ..wording import one_line, short
from .layout import checked_dtype, is_torch_only, make_layout, name_of
from .literals import parse_literal

_MAGIC = b"\x93NUMPY"
_ZIP_MAGIC = b"PK\x03\x04"  # of .npz
NPY_START_BYTES = 12  # in which the length of the header is
_USUAL_HEADER_BYTES = 4096
_MAX_HEADER_BYTES = 1 << 20
_MOST_DIMENSIONS = 64
_FLOAT8_E5M2 = "<f1"  # of ml_dtypes
# The names of types that NEP 1 knows, and numpy's own. Others are texts that numpy evaluates, in
# part, and warns of: 'f4,u1', '2f4', '<04'.
_TYPE_NAME = re.compile(r"[<>|=]?[?A-Zb-z][A-Za-z]*\d*(\[\w+(/\w+)?\])?", re.ASCII)


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
        NotFoundError, AccessError, ReadError: It cannot be opened or read.
        DataError: Not a ``.npy`` file, a damaged header, Fortran order, or Python objects.
    """

    def read(begin: int, end: int) -> bytes:
        return bytes(store_of(path).read(path, begin, end))

    return npy_header_of(path, read(0, _USUAL_HEADER_BYTES), read)


def npy_header_of(path: str, begin: bytes, read: Callable[[int, int], bytes]) -> NpyHeader:
    """The same of an array whose first bytes are at hand.

    Args:
        path: For errors.
        begin: ``NPY_START_BYTES`` at least, if there are as many.
        read: Reads the bytes of the array from one place to another.
    """
    text, header_bytes = _header_text(path, begin, read)
    descr, fortran_order, shape = _parse(text, path)
    try:
        _check_descr(descr)
        dtype = np.lib.format.descr_to_dtype(_readable(descr))
    except Exception as error:  # numpy's parser of types raises whatever it stumbles over
        raise DataError(
            f"{path}: invalid dtype {short(descr)} in the .npy header: {one_line(str(error))}"
        ) from None
    if dtype.hasobject:
        raise DataError(
            f"{path}: holds Python objects, which cannot be read as tensors; save an array of "
            "numbers "
            "instead, such as array.astype(numpy.float32)"
        )
    if fortran_order and len(shape) > 1:
        raise DataError(
            f"{path}: is in Fortran order, so its records are not contiguous; "
            "save numpy.ascontiguousarray(array) instead"
        )
    return NpyHeader(dtype, shape, header_bytes)


def is_of_numpy(path: str) -> bool:
    """Whether a file named .npy or .npz is what its name says."""
    try:
        begin = bytes(store_of(path).read(path, 0, len(_MAGIC)))
    except Error:
        return False  # whoever reads it says what is wrong
    return begin.startswith((_MAGIC, _ZIP_MAGIC))


def npy_dtype(path: str, header: NpyHeader, given: Any) -> Any:
    """Of the elements: as given, else as the header says.

    Headers cannot name what numpy lacks: bfloat16 and float8 are saved as bytes of no type (V2,
    V1), or by people as integers of the same size. Times, which torch lacks, are read as integers.

    Raises:
        ConfigError: A dtype is needed, or the given one does not fit the header.
    """
    if given is not None:
        if not _may_hold(header.dtype, given):
            raise ConfigError(
                f"{path}: holds {header.dtype}, which dtype={given} does not fit; leave dtype= "
                "out, which is for what a header cannot name (bfloat16 and float8), and for times "
                "(int64). as_dtype= converts"
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
    is_time = stored.kind in "mM" and wanted.kind == "i" and stored.isnative == wanted.isnative
    return is_untyped or is_time or stored == wanted


def _readable(descr: Any) -> Any:
    """The header's text for a dtype, as bytes where numpy writes one that it cannot read."""
    if isinstance(descr, list):
        return [
            (item[0], _readable(item[1]), *item[2:]) if type(item) is tuple and item[1:] else item
            for item in descr
        ]
    return "|V1" if isinstance(descr, str) and descr == _FLOAT8_E5M2 else descr


def _header_text(path: str, begin: bytes, read: Callable[[int, int], bytes]) -> tuple[str, int]:
    prefix = begin[:8]
    if len(prefix) < 8 or not prefix.startswith(_MAGIC):
        raise DataError(
            f"{path}: is not a .npy file (it does not begin with {_MAGIC!r}); of a .npz file, "
            "save each "
            "array by numpy.save; bare numbers are read by RecordDataset(path, dtype=..., "
            "shape=...)"
        )
    major, minor = prefix[6], prefix[7]
    if major not in (1, 2, 3) or minor != 0:
        raise DataError(f"{path}: .npy version {major}.{minor} is not known; save it by numpy.save")
    length_bytes = 2 if major == 1 else 4
    first = 8 + length_bytes
    length = int.from_bytes(begin[8:first], "little")
    if length > _MAX_HEADER_BYTES:
        raise DataError(f"{path}: the .npy header claims {length} bytes, more than a header has")
    if first + length > len(begin):
        begin = read(0, first + length)
    raw = begin[first : first + length]
    if len(raw) < length:
        raise DataError(f"{path}: ends within its .npy header; save or copy it again")
    try:
        text = raw.decode("utf-8" if major == 3 else "latin-1")
    except UnicodeDecodeError:
        raise DataError(f"{path}: the .npy header is not text") from None
    return text, first + length


def _parse(text: str, path: str) -> tuple[Any, bool, tuple[int, ...]]:
    try:
        header = parse_literal(text)
    except ValueError:
        header = None
    if not isinstance(header, dict) or set(header) != {"descr", "fortran_order", "shape"}:
        raise DataError(f"{path}: damaged .npy header: {short(text)}")
    shape, fortran_order = header["shape"], header["fortran_order"]
    if not _is_shape(shape) or not isinstance(fortran_order, bool):
        raise DataError(f"{path}: damaged .npy header: {short(text)}")
    return header["descr"], fortran_order, shape


def _is_shape(shape: Any) -> bool:
    return (
        isinstance(shape, tuple)
        and len(shape) <= _MOST_DIMENSIONS
        and all(type(extent) is int and extent < 1 << 62 for extent in shape)
    )


def _check_descr(descr: Any) -> None:
    """Raises ValueError for what is not a name, a type with a shape, or a list of fields."""
    if isinstance(descr, list):
        for field in descr:
            if not isinstance(field, tuple) or len(field) not in (2, 3) or not _is_name(field[0]):
                raise ValueError(f"{short(field)} is no field")
            _check_descr(field[1:] if len(field) == 3 else field[1])
    elif isinstance(descr, tuple):
        if len(descr) != 2 or not _is_shape(descr[1]):
            raise ValueError(f"{short(descr)} is no type with a shape")
        _check_descr(descr[0])
    elif not isinstance(descr, str) or _TYPE_NAME.fullmatch(descr) is None:
        raise ValueError("it names no type")


def _is_name(name: Any) -> bool:
    """Of a field, or its title and its name."""
    if isinstance(name, tuple):
        return len(name) == 2 and all(isinstance(part, str) for part in name)
    return isinstance(name, str)
