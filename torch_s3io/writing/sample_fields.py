"""Fields of samples as commands name them, and as a first sample shows them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..errors import ConfigError
from ..format.sample_layout import SampleField, make_sample_layout
from ..format.sample_table import load_table
from ..format.samples import SampleManifest
from ..wording import short
from .record_rows import describe

_KIND = re.compile(r"(?P<dtype>[^\[\]]+)(\[(?P<shape>[^\[\]]*)\])?")
_NAMED = {"bytes": bytes, "str": str}
_SCALARS = {bool: np.bool_, int: np.int64, float: np.float64, complex: np.complex128}


def parse_field(text: str) -> tuple[str, Any]:
    """``image=uint8[n,n,3]`` as the name of a field, and its kind as SampleWriter takes it.

    Raises:
        ConfigError: Another text.
    """
    name, equals, kind = text.rpartition("=")
    matched = _KIND.fullmatch(kind)
    if not equals or not name or matched is None:
        raise ConfigError(f"--field {text}: is not NAME=KIND, as in {_EXAMPLES}")
    dtype, shape = matched["dtype"].strip(), matched["shape"]
    parsed: Any = _NAMED.get(dtype, dtype)
    if shape is not None:
        parsed = (parsed, tuple(_extent(text, extent.strip()) for extent in shape.split(",")))
    try:
        make_sample_layout({name: parsed})
    except ConfigError as error:
        raise ConfigError(f"--field {text}: {str(error).removeprefix('fields=: ')}") from None
    return name, parsed


_EXAMPLES = "image=bytes, label=int64, tokens=uint16[n], box=float32[4]"


def _extent(text: str, extent: str) -> int | None:
    if extent == "n":
        return None
    if not (extent.isascii() and extent.isdigit()):
        raise ConfigError(
            f"--field {text}: {short(extent)} is no length of an axis: give a number, or n for any "
            f"length; as in {_EXAMPLES}"
        )
    return int(extent)


def fields_of(sample: Mapping[Any, Any], given: Mapping[str, Any]) -> dict[Any, Any]:
    """The fields of a sample; every axis of an array may have another length in the next one.

    Args:
        given: Kinds of some of them, whatever the sample has.

    Raises:
        ConfigError: A value of which no field can be made.
    """
    fields = {
        name: given[name] if name in given else _kind_of(name, value)
        for name, value in sample.items()
    }
    return {**fields, **given}


def _kind_of(name: Any, value: Any) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes
    if isinstance(value, str):
        return str
    if type(value) in _SCALARS:
        return _SCALARS[type(value)]
    if isinstance(value, (np.ndarray, np.generic, torch.Tensor)):
        return (value.dtype, (None,) * value.ndim) if value.ndim else value.dtype
    way = "numpy.asarray(value, dtype) makes an array of numbers, json.dumps(value) a text"
    if not isinstance(value, (list, tuple, dict)):
        way = f"{way}; what a file has goes in as bytes"
    raise ConfigError(
        f"sample 0, field {short(name)}: {describe(value)} is not stored as it is: {way}"
    )


def option_of(name: str, field: SampleField, shape: Sequence[int | None], is_text: bool) -> str:
    """``--field 'image=uint8[n,n,3]'``, as a shell takes it."""
    if is_text or field.takes_bytes:
        kind = "str" if is_text else "bytes"
    else:
        extents = ",".join("n" if extent is None else str(extent) for extent in shape)
        kind = f"{field.stored}[{extents}]" if shape else field.stored
    return f"--field {shlex.quote(f'{name}={kind}')}"


def options_of(fields: Mapping[str, Any]) -> str:
    """These fields as options."""
    layout = make_sample_layout(fields)
    return " ".join(
        option_of(field.name, field, field.shape, fields[field.name] is str)
        for field in layout.fields
    )


def narrower_options(folder: str, manifest: SampleManifest, names: Iterable[str]) -> str:
    """Options for those of these fields that have open axes whose length is the same in all
    samples: of such axes the length. Empty if there are none."""
    found, extremes = [], _extremes(folder, manifest)
    for field, (least, most) in zip(manifest.layout.ragged, extremes, strict=True):
        same = {
            axis: high
            for axis, low, high in zip(field.open_axes, least, most, strict=True)
            if low == high > 0
        }
        if same and field.name in names and not field.takes_bytes:
            shape = [same.get(axis, extent) for axis, extent in enumerate(field.shape)]
            found.append(option_of(field.name, field, shape, False))
    return " ".join(found)


def _extremes(folder: str, manifest: SampleManifest) -> list[tuple[list[int], list[int]]]:
    """The least and the greatest length of each open axis, per ragged field."""
    least = [np.array(most) for most in manifest.largest_lengths]
    for shard in manifest.shards:
        table = load_table(f"{folder}/{shard.name}", shard, manifest)
        for low, column in zip(least, table.lengths, strict=True):
            np.minimum(low, column.min(axis=0), out=low, casting="unsafe")
    most = map(list, manifest.largest_lengths)
    return [(low.tolist(), high) for low, high in zip(least, most, strict=True)]
