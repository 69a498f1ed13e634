"""Single numbers as they are stored, where nothing of them is lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from ..errors import ConfigError
from ..format.sample_layout import SampleField
from ..wording import short
from .record_rows import describe, stored_array

# What numbers of Python go into a dtype, by its kind.
_PYTHON: dict[str, set[type]] = {
    "b": {bool},
    "i": {int},
    "u": {int},
    "f": {int, float},
    "c": {int, float, complex},
}


def stored_numbers(values: Sequence[Any], field: SampleField) -> np.ndarray[Any, Any]:
    """The scalar of each sample, as it is stored: [n].

    Numbers of Python are taken where they fit: integers within the range of an integer dtype, or
    that a float can hold exactly; floats are rounded. Others must have the dtype of the field.

    Raises:
        ConfigError: Another value; the text says in which sample.
    """
    kinds = set(map(type, values))
    if kinds <= {bool, int, float, complex}:
        return _of_python(values, kinds, field)
    if len(kinds) == 1 and issubclass(next(iter(kinds)), np.generic):
        together = np.array(values)
        if together.dtype.name == field.stored:
            return stored_array(together, field, lambda shape: True, str, field.name)
    return stacked([_one(value, number, field) for number, value in enumerate(values)])


def stacked(arrays: Sequence[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Arrays of one shape and dtype along a new first axis, in their byte order."""
    out = np.empty((len(arrays), *arrays[0].shape), arrays[0].dtype)
    return np.stack(arrays, out=out)


def _one(value: Any, number: int, field: SampleField) -> np.ndarray[Any, Any]:
    what = f"sample {number}, field {field.name!r}"

    def expected() -> str:
        text = f"{what}: a number of {field.stored} is expected, not {describe(value)}"
        if np.ndim(value) == 0:
            return text
        kind = f"(np.{field.stored}, (None,))"
        return f"{text}; fields={{{field.name!r}: {kind}}} takes arrays of any length"

    if type(value) in (bool, int, float, complex):
        return _of_python([value], {type(value)}, field, number).reshape(())
    array = np.asarray(value) if isinstance(value, np.generic) else value
    if isinstance(value, (list, tuple)):
        raise ConfigError(expected())
    return stored_array(array, field, lambda shape: shape == (), expected, what)


def _of_python(
    values: Sequence[Any], kinds: set[type], field: SampleField, first: int = 0
) -> np.ndarray[Any, Any]:
    def refuse(number: int) -> NoReturn:
        raise ConfigError(
            f"sample {first + number}, field {field.name!r}: {field.stored} cannot hold "
            f"{short(values[number])} as it is; convert it before, or give the field another dtype"
        )

    try:
        dtype = np.dtype(field.stored)
    except TypeError:  # one that numpy lacks
        raise ConfigError(
            f"sample {first}, field {field.name!r}: a number of {field.stored} is expected, not "
            f"{describe(values[0])}; torch.tensor(value, dtype=torch.{field.stored}) makes one"
        ) from None
    allowed = _PYTHON[dtype.kind]
    for number, value in enumerate(values) if not kinds <= allowed else ():
        if type(value) not in allowed:
            refuse(number)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        if min(values) < info.min or max(values) > info.max:
            refuse(next(i for i, v in enumerate(values) if not info.min <= v <= info.max))
    if dtype.kind in "fc" and int in kinds:
        _check_exact(values, dtype, refuse)
    with np.errstate(over="ignore"):
        array = np.array(values, dtype)
    if dtype.kind in "fc":
        for number in np.isinf(array).nonzero()[0].tolist():
            if not np.isinf(values[number]):
                refuse(number)
    return array.astype(dtype.newbyteorder("S") if field.swap_bytes else dtype, copy=False)


def _check_exact(values: Sequence[Any], dtype: np.dtype[Any], refuse: Any) -> None:
    for number, value in enumerate(values):
        if type(value) is not int:
            continue
        try:
            with np.errstate(over="ignore"):
                is_exact = complex(dtype.type(value)) == value
        except OverflowError:
            is_exact = False
        if not is_exact:
            refuse(number)
