"""Headers of .npy files: what is accepted is what numpy says, and is read as numpy reads it."""

from __future__ import annotations

import io
import itertools
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from engine.checks import naming

from torch_s3io import _C, Error, RecordDataset
from torch_s3io.format.npy import npy_header_of

TOKENS = (
    *(b"\x93NUMPY\x01\x00", b"\x93NUMPY\x03\x00", b"'descr'", b"'fortran_order'", b"'shape'"),
    *(b"'<f4'", b"'|u1'", b"'>i8'", b"'|b1'", b"'<c16'", b"'|O'", b"'<U3'", b"'<M8[ns]'"),
    *(b"',f4'", b"'<04'", b"'f4,u1'", b"'(2,3)f4'", b"'1f4'", b"'|V4'", b"'bfloat16'", b"'a5'"),
    *(b"[('a', '<f4')]", b"('b', '<u2', (2, 3))", b"(('t', 'a'), '<f4')", b"('', '|V4')"),
    *(b"True", b"False", b"None", b"(", b")", b"[", b"]", b"{", b"}", b",", b":", b"3L", b"\\"),
    *(b"b'x'", b"u'x'", b'"x"', b"'\\x00'", b"'\\d'", b"'\\ud800'", b"1_0", b"0x10", b"-1", b"1j"),
)
_MOST_READ = 1 << 16
_ALL_READ = 100  # a corpus, or one input


def make(folder: Path) -> Callable[[bytes], None]:
    path = folder / "x.npy"
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    accepted = itertools.count()

    def read(data: bytes) -> None:
        os.ftruncate(file, 0)
        os.pwrite(file, data, 0)
        with naming(path):
            _check_native(path, data)
            try:
                dataset = RecordDataset.from_npy(path, batch_size=1000)
            except Error:
                if _is_as_numpy_writes(path, data):
                    raise AssertionError("an array that numpy wrote is refused") from None
                raise
        wanted = _as_numpy_reads(data)
        assert dataset.num_records == len(wanted)
        # Reading takes a hundred times longer than a header: later on only some are read.
        number = next(accepted)
        is_read = number < _ALL_READ or number % 16 == 0
        if is_read and wanted.nbytes <= _MOST_READ and len(wanted) <= 1000:
            (batch,) = list(dataset) or [None]
            _compare(batch, wanted)

    return read


def _check_native(path: Path, data: bytes) -> None:
    """What is read natively is what the parser of all headers says."""
    heads = np.frombuffer(data, np.uint8)[np.newaxis]
    ends = np.array([len(data)])
    found = _C.parse_npy_heads(data=heads, begins=np.zeros(1, np.int64), ends=ends)
    if found.types[0] < 0:
        return
    header = npy_header_of(str(path), data, lambda begin, end: data[begin:end])
    axes = int(found.axes[0])
    assert header.shape == tuple(found.shapes[0, :axes].tolist())
    assert header.header_bytes == found.header_bytes[0]


def _as_numpy_reads(data: bytes) -> np.ndarray:
    """Without the white space around the header, of which Python takes some for indentation."""
    start = 10 if data[6] == 1 else 12
    end = start + int.from_bytes(data[8:start], "little")
    header = data[start:end].strip()
    prefix = data[:8] + len(header).to_bytes(start - 8, "little")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Reading `.npy` .* Python 2", UserWarning)
        stream = io.BytesIO(prefix + header + data[end:])
        return np.lib.format.read_array(stream, allow_pickle=False, max_header_size=1 << 20)


def _is_as_numpy_writes(path: Path, data: bytes) -> bool:
    """Whether it is an array of numbers, byte by byte as numpy writes it."""
    try:
        array = np.load(path, allow_pickle=False)
        stream = io.BytesIO()
        np.lib.format.write_array(stream, array, version=(data[6], 0))
    except Exception:  # numpy raises whatever it stumbles over
        return False
    has_records = array.ndim > 0 and array.size > 0 and array.flags.c_contiguous
    is_known = array.dtype.kind in "buifc" and array.dtype not in (np.longdouble, np.clongdouble)
    return has_records and is_known and stream.getvalue() == data


def _compare(batch: object, wanted: np.ndarray) -> None:
    if batch is None:
        assert len(wanted) == 0
        return
    fields = batch if isinstance(batch, dict) else {"": batch}
    for name, tensor in fields.items():
        array = wanted
        for part in filter(None, name.split(".")):
            array = array[part]
        native = array.astype(array.dtype.newbyteorder("="))
        assert tensor.numpy().tobytes() == native.tobytes(), name
