"""Record layouts: a numpy or torch dtype and a shape, as the core wants them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from .. import _C
from ..config import check_int
from ..errors import ConfigError
from ..wording import is_text, listed, one_line, short

# numpy's kind and item size -> torch's name.
_NUMPY_NAMES = {
    "b1": "bool",
    "u1": "uint8",
    "i1": "int8",
    "u2": "uint16",
    "i2": "int16",
    "u4": "uint32",
    "i4": "int32",
    "u8": "uint64",
    "i8": "int64",
    "f2": "float16",
    "f4": "float32",
    "f8": "float64",
    "c8": "complex64",
    "c16": "complex128",
}
# What numpy lacks; ml_dtypes has it by the same names.
_TORCH_NAMES = ("bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
# What files are read as, by torch's names.
KNOWN_NAMES = (*_NUMPY_NAMES.values(), *_TORCH_NAMES)
_FLOATS = {"float16", "bfloat16", "float32", "float64"}


@dataclass(frozen=True)
class Field:
    """One field of a record, or the whole record of a plain layout (then ``name`` is empty).

    Attributes:
        name: Key in the batch's dict.
        stored: Element type in the file, by torch's name.
        output: Element type of the tensor.
        swap_bytes: Stored in the byte order that is not this machine's.
        offset: Bytes from the start of the record.
        shape: Shape within one record.
    """

    name: str
    stored: str
    output: str
    swap_bytes: bool
    offset: int
    shape: tuple[int, ...]

    @property
    def output_dtype(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self.output)
        return dtype

    def to_core(self) -> _C.Field:
        return _C.Field(
            name=self.name,
            type=self.stored,
            output=self.output,
            swap_bytes=self.swap_bytes,
            offset=self.offset,
            shape=self.shape,
        )


@dataclass(frozen=True)
class RecordLayout:
    """Fixed-size records.

    Attributes:
        fields: At least one.
        record_bytes: Size of a record.
        stride_bytes: From one record's start to the next one's; smaller than ``record_bytes`` when
            records overlap.
    """

    fields: tuple[Field, ...]
    record_bytes: int
    stride_bytes: int

    @property
    def is_plain(self) -> bool:
        """One tensor per batch rather than a dict of tensors."""
        return len(self.fields) == 1 and self.fields[0].name == ""

    def identity(self) -> list[Any]:
        """For JSON, without what records are converted to: which is which does not depend on
        it."""
        fields = [asdict(replace(field, output=field.stored)) for field in self.fields]
        return [fields, self.record_bytes, self.stride_bytes]

    def describe(self) -> str:
        """The fields as they are stored, for people."""
        orders = ("", " in the other byte order")
        described = [
            f"{one_line(field.name, 60) or 'record'}: {field.stored}{list(field.shape)}"
            f"{orders[field.swap_bytes]}"
            for field in self.fields
        ]
        return f"{{{listed(described)}}} in {self.record_bytes} bytes"


def make_layout(
    dtype: Any, shape: Any = (), as_dtype: Any = None, *, stride_bytes: int | None = None
) -> RecordLayout:
    """The layout for ``dtype`` and ``shape`` as RecordDataset documents them.

    Raises:
        ConfigError: A dtype that tensors cannot have, a shape that is none, an empty record.
    """
    shape = _check_shape(shape)
    dtype = checked_dtype(dtype)
    record_bytes: int = dtype.itemsize
    if isinstance(dtype, torch.dtype):
        fields = [Field("", name_of(dtype), name_of(dtype), False, 0, shape)]
    else:
        if dtype.names is not None and shape:
            raise ConfigError("shape= goes with a plain dtype; a structured one has its own shapes")
        fields = _fields_of(dtype, "", 0, shape)
    names = [field.name for field in fields]
    if len(set(names)) < len(names):
        raise ConfigError(
            f"two fields have the same name once nested names are joined: {listed(names)}; rename "
            "one"
        )
    for name in names:
        if not is_text(name):
            raise ConfigError(f"{short(name)} cannot name a field: it is not Unicode text")
    for extent in shape:
        record_bytes *= extent
    if record_bytes == 0 or not fields:
        raise ConfigError(
            f"a record of dtype {_type_text(dtype)} and shape {shape} has no bytes: give a dtype "
            "of one at "
            "least"
        )
    return RecordLayout(
        fields=_with_outputs(tuple(fields), as_dtype),
        record_bytes=record_bytes,
        stride_bytes=record_bytes if stride_bytes is None else stride_bytes,
    )


def make_window_layout(
    dtype: Any, window: int, stride: int | None, as_dtype: Any
) -> tuple[RecordLayout, int]:
    """The layout of windows of tokens as RecordDataset.from_tokens documents them, and the bytes of
    a token.

    Raises:
        ConfigError: As ``make_layout``; a window or stride that is none.
    """
    window = check_int("window", window, 1)
    step = window if stride is None else check_int("stride", stride, 1)
    token = make_layout(dtype)
    if not token.is_plain or token.fields[0].shape:
        raise ConfigError(f"tokens have a plain dtype such as 'uint16', not {short(dtype)}")
    token_bytes = token.record_bytes
    layout = make_layout(dtype, (window,), as_dtype, stride_bytes=step * token_bytes)
    return layout, token_bytes


def make_stored_layout(
    fields: tuple[Field, ...], record_bytes: int, stride_bytes: int, as_dtype: Any
) -> RecordLayout:
    """The layout of records whose fields are known, converted as ``as_dtype`` says."""
    return RecordLayout(_with_outputs(fields, as_dtype), record_bytes, stride_bytes)


def _type_text(dtype: Any) -> str:
    return one_line(str(dtype))


def _check_shape(shape: Any) -> tuple[int, ...]:
    items = (shape,) if hasattr(shape, "__index__") and not np.ndim(shape) else shape
    if isinstance(items, (str, Set)) or not isinstance(items, Iterable):
        raise ConfigError(
            "shape must be an integer or a tuple of integers, such as (3, 32, 32), not "
            f"{short(shape)}"
        )
    return tuple(check_int("every entry of shape", item, 1) for item in items)


def checked_dtype(dtype: Any) -> torch.dtype | np.dtype[Any]:
    """One of torch, or of numpy, structured or not.

    Raises:
        ConfigError: What is none, or one of torch that files are not read as.
    """
    if dtype is None:
        raise ConfigError(
            "dtype= is missing: of the records, a numpy or torch dtype, such as np.float32 (with "
            "shape= of "
            "one record). RecordDataset.from_npy reads it from .npy files, and "
            "RecordDataset(folder) "
            "from the manifest of a folder that RecordWriter or pack wrote"
        )
    if isinstance(dtype, str) and dtype in _TORCH_NAMES:
        dtype = getattr(torch, dtype)
    if not isinstance(dtype, torch.dtype):
        return _as_numpy(dtype)
    if name_of(dtype) not in KNOWN_NAMES:
        raise ConfigError(
            f"records of {dtype} are not read; read their bytes as torch.uint8, and convert them "
            "in transform="
        )
    return dtype


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def is_torch_only(dtype: torch.dtype) -> bool:
    """Whether numpy lacks it."""
    return name_of(dtype) in _TORCH_NAMES


def _as_numpy(dtype: Any) -> np.dtype[Any]:
    try:
        converted: np.dtype[Any] = np.dtype(dtype)
        return converted
    except Exception as error:  # its parser raises whatever it stumbles over, also SyntaxError
        raise ConfigError(f"{short(dtype)} is not a dtype: {one_line(str(error))}") from None


def _fields_of(dtype: np.dtype[Any], name: str, offset: int, shape: tuple[int, ...]) -> list[Field]:
    """The fields of ``dtype``, those of nested structures with dotted names."""
    if dtype.subdtype is not None:
        element, inner = dtype.subdtype
        if element.names is not None:
            what = f"field {short(name)}" if name else "dtype"
            raise ConfigError(
                f"{what}: arrays of structures are not supported; give every element a name of its "
                "own, or make the fields arrays"
            )
        return _fields_of(element, name, offset, (*shape, *inner))
    if dtype.names is None:
        return [_scalar_field(dtype, name, offset, shape)]
    assert dtype.fields is not None
    fields: list[Field] = []
    for inner_name in dtype.names:
        inner_dtype, inner_offset = dtype.fields[inner_name][:2]
        full_name = f"{name}.{inner_name}" if name else inner_name
        fields += _fields_of(inner_dtype, full_name, offset + inner_offset, ())
    return fields


def _torch_name_of(dtype: np.dtype[Any]) -> str | None:
    """Also of the dtypes that ml_dtypes adds to numpy."""
    if dtype.name in _TORCH_NAMES:
        return dtype.name
    return _NUMPY_NAMES.get(f"{dtype.kind}{dtype.itemsize}")


def _scalar_field(dtype: np.dtype[Any], name: str, offset: int, shape: tuple[int, ...]) -> Field:
    torch_name = _torch_name_of(dtype)
    if torch_name is None:
        what = f"field {short(name)}" if name else "dtype"
        as_bytes = f"; read bytes as np.uint8 with shape ({dtype.itemsize},)"
        hint = {
            "S": as_bytes,
            "V": f"{as_bytes}, or 2 bytes that are bfloat16 as torch.bfloat16",
            "U": f"; read it as np.uint32 with shape ({dtype.itemsize // 4},)",
            "M": "; read it as np.int64",
            "m": "; read it as np.int64",
            "O": "; Python objects cannot be read from a file of records",
        }.get(dtype.kind, "")
        raise ConfigError(f"{what}: torch has no tensors of {_type_text(dtype)}{hint}")
    swap_bytes = not dtype.isnative
    return Field(name, torch_name, torch_name, swap_bytes, offset, shape)


def _with_outputs(fields: tuple[Field, ...], as_dtype: Any) -> tuple[Field, ...]:
    if as_dtype is None:
        return fields
    if not isinstance(as_dtype, Mapping):
        if len(fields) > 1 or fields[0].name:
            raise ConfigError("as_dtype= of a structured dtype is a dict: {field name: dtype}")
        return (_with_output(fields[0], as_dtype),)
    unknown = set(as_dtype) - {field.name for field in fields}
    if unknown:
        known = listed([short(field.name) for field in fields])
        others = listed(sorted(map(short, unknown)))
        raise ConfigError(f"as_dtype= names {others}, but the fields are {known}")
    return tuple(
        _with_output(field, as_dtype.get(field.name, field.output_dtype)) for field in fields
    )


def _with_output(field: Field, dtype: Any) -> Field:
    output = _torch_name(dtype)
    if output != field.stored and not _keeps_values(field.stored, output):
        what = f"field {short(field.name)}" if field.name else "the records"
        raise ConfigError(
            f"as_dtype: {what}: {field.stored} to {output} may change values; use transform= for it"
        )
    return replace(field, output=output)


def _keeps_values(stored: str, output: str) -> bool:
    """Safe in numpy's sense, or to floats of any size, which only round."""
    known = set(_NUMPY_NAMES.values())
    if output in _FLOATS:
        return stored in known | _FLOATS and not stored.startswith("complex")
    return {stored, output} <= known and bool(np.can_cast(stored, output, "safe"))


def _torch_name(dtype: Any) -> str:
    converted = checked_dtype(dtype)
    if isinstance(converted, torch.dtype):
        return name_of(converted)
    name = _torch_name_of(converted)
    if name is None or not converted.isnative:
        raise ConfigError(f"as_dtype: torch has no tensors of {_type_text(converted)}")
    return name
