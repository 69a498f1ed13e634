"""Types and shapes of records, as a user or a command line names them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from torch_s3io.format.layout import make_layout, make_window_layout

TOKENS = [
    *(b'"dtype"', b'"shape"', b'"as_dtype"', b'"window"', b'"stride"', b'"f4"', b'">u2"', b'"?"'),
    *(b'",f4"', b'"<04"', b'"f4,u1"', b'"(2,3)f4"', b'"2f4"', b'"M8[ns]"', b'"U3"', b'"O"'),
    *(b'"V8"', b'"S5"', b'"float8"', b'"bfloat16"', b'"int64"', b'"c8"', b'"g"', b'"a5"', b'"u"'),
    *(b'[["a","f4"],["b","u1",[2,3]]]', b'[["a",[["b","i4"]]]]', b'["f4",[2]]', b'"(,)f4"'),
    *(b'{"names":["a"],"formats":["f4"],"offsets":[4],"itemsize":16}', b'"M8[1000000000s]"'),
]


def make(folder: Path) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        try:
            given = json.loads(data)
        except (ValueError, RecursionError):
            return
        if not isinstance(given, dict):
            return
        dtype = _with_tuples(given.get("dtype"))
        shape, as_dtype = given.get("shape", ()), given.get("as_dtype")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numpy's, to the user, about what the user wrote
            layout = make_layout(dtype, shape, as_dtype)
            _check(layout, dtype, shape)
            if "window" in given:
                make_window_layout(dtype, given["window"], given.get("stride"), as_dtype)

    return read


def _with_tuples(value: Any) -> Any:
    """Lists within lists as numpy wants them: [("a", "f4"), ("b", "u1", (2, 3))]."""
    if isinstance(value, list):
        return [
            tuple(
                tuple(part) if index == 2 and isinstance(part, list) else _with_tuples(part)
                for index, part in enumerate(field)
            )
            if isinstance(field, list)
            else field
            for field in value
        ]
    return value


def _check(layout: Any, dtype: Any, shape: Any) -> None:
    wanted = np.dtype(dtype)
    extents = [shape] if isinstance(shape, int) else shape
    assert layout.record_bytes == wanted.itemsize * int(
        np.prod([int(e) for e in extents], dtype=object)
    )
    for field in layout.fields:
        size = np.dtype(field.stored).itemsize
        for extent in field.shape:
            size *= extent
        assert 0 <= field.offset <= layout.record_bytes - size, field
