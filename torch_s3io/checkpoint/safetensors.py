"""Safetensors files in any store (https://github.com/huggingface/safetensors, "Format")."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from ..config import path_text
from ..errors import ConfigError, DataError
from ..format.checked_json import CheckedJson
from ..store.object_writer import as_bytes
from ..store.stores import store_of
from ..wording import short
from .transfer import Config, Range, bytes_of, read_all, store_for, warn_if_nothing_verifies

_DTYPES = {
    **{"BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64"},
    **{"U16": "uint16", "U32": "uint32", "U64": "uint64", "F16": "float16", "BF16": "bfloat16"},
    **{"F32": "float32", "F64": "float64", "C64": "complex64"},
    **{"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu"},
}
# By their names here, those that this torch has.
_BY_NAME = {name: getattr(torch, of) for name, of in _DTYPES.items() if hasattr(torch, of)}
_NAMES = {dtype: name for name, dtype in _BY_NAME.items()}
_MOST_HEADER_BYTES = 100_000_000  # as the format's own library
_LENGTH_BYTES = 8
_ALIGNMENT = 8


class _Entry(NamedTuple):
    name: str
    dtype: torch.dtype
    shape: list[int]
    begin: int
    end: int


def load_safetensors(
    path: str | os.PathLike[str], *, device: str | torch.device = "cpu", store: Config = None
) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, or of several::

        weights = s3io.load_safetensors("model-*.safetensors", device="cuda")

    The file is read once, several ranges at a time, into one allocation, which the tensors are
    views of: of those whose place in the file does not fit their type, a copy. Nothing of it is
    executed, and the header is checked before memory is taken.

    Args:
        path: A file or an object (``s3://bucket/key``), or a pattern of some that have no name in
            common.
        device: Where the tensors are. One copy of each file goes there.
        store: How to read: a FileSystemConfig for files, an S3Config for a bucket, or what
            ``open_store`` gives. None: the defaults.

    Raises:
        NotFoundError: There is no such file.
        FileChangedError, ObjectChangedError: It was changed or replaced while it was read.
        DataError: It is no safetensors file, or is cut; or two files have a tensor of one name.
    """
    tensors: dict[str, torch.Tensor] = {}
    text = path_text(path)
    store_for(text, store)  # of a bucket, how it is reached
    warn_if_nothing_verifies(text)
    files = store_of(text)
    every = files.find(text, "natural")
    files.inspect([found.path for found in every])  # else a bucket's keeps what it has found
    for found in every:
        for name, tensor in _load_one(found.path, torch.device(device), store).items():
            if name in tensors:
                raise DataError(f"{found.path}: the tensor {short(name)} is in another file, too")
            tensors[name] = tensor
    return tensors


def _load_one(path: str, device: torch.device, config: Config) -> dict[str, torch.Tensor]:
    store: Any = store_for(path, config)
    info = store.stat(path)  # that of all reads
    size = info.size_bytes
    header = CheckedJson(path)
    if size < _LENGTH_BYTES:
        header.fail(f"has {size} bytes, which is no safetensors file")
    head = store.get_range(path, 0, _LENGTH_BYTES, version=info)
    length = int.from_bytes(bytes(as_bytes(head)), "little")
    begins = _LENGTH_BYTES + length
    if length > _MOST_HEADER_BYTES or begins > size:
        header.fail(
            f"its header would have {length} bytes, and the file has {size}; it is no safetensors "
            "file, or is cut"
        )
    text = store.get_range(path, _LENGTH_BYTES, length, version=info)
    entries = _entries(header, bytes(as_bytes(text)), size - begins)
    data = torch.empty(size - begins, dtype=torch.uint8)
    read_all(store, [Range(path, begins, data)], {path: info})
    data = data.to(device)
    return {entry.name: _view(data, entry) for entry in entries}


def _entries(header: CheckedJson, text: bytes, data_bytes: int) -> list[_Entry]:
    """The tensors by their places, which cover the file without a hole and without an overlap."""
    fields = header.object(header.load(text), "the header")
    metadata = header.object(fields.pop("__metadata__", {}), "__metadata__")
    if not all(isinstance(value, str) for value in metadata.values()):
        header.fail("__metadata__ has a value that is no string")
    entries = [_entry(header, name, value, data_bytes) for name, value in fields.items()]
    entries.sort(key=lambda entry: (entry.begin, entry.end))
    end = 0
    for entry in entries:
        if entry.begin != end:
            header.fail(f"the tensor {short(entry.name)} begins at {entry.begin}, not at {end}")
        end = entry.end
    if end != data_bytes:
        header.fail(f"its tensors have {end} bytes, and the file has {data_bytes} of them")
    return entries


def _entry(header: CheckedJson, name: str, value: Any, data_bytes: int) -> _Entry:
    where = f"the tensor {short(name)}"
    fields = header.object(value, where)
    dtype = _BY_NAME.get(header.string(fields, "dtype", where))
    if dtype is None:
        header.fail(
            f"{where}: dtype {short(fields['dtype'])} is not known; newer ones need a newer torch"
        )
    shape = header.shape(fields, where)
    size = header.bytes_of_shape(shape, dtype.itemsize, data_bytes, where)
    offsets = header.items(fields, "data_offsets", where)
    if len(offsets) != 2:
        header.fail(f"{where}: data_offsets are {short(offsets)}, not two")
    begin, end = (
        header.checked_integer(offset, f"{where}: data_offsets", 0, data_bytes)
        for offset in offsets
    )
    if end - begin != size:
        header.fail(f"{where}: {shape} of {dtype} have {size} bytes, and {end - begin} are its own")
    return _Entry(name, dtype, shape, begin, end)


def _view(data: torch.Tensor, entry: _Entry) -> torch.Tensor:
    part = data[entry.begin : entry.end]
    if entry.begin % entry.dtype.itemsize:
        part = part.clone()
    return part.view(entry.dtype).reshape(entry.shape)


def save_safetensors(
    tensors: Mapping[str, torch.Tensor],
    path: str | os.PathLike[str],
    *,
    metadata: Mapping[str, str] | None = None,
    store: Config = None,
) -> None:
    """Writes tensors as a safetensors file, from their own memory::

        s3io.save_safetensors(model.state_dict(), "model.safetensors")

    It is there whole, or not at all. Tensors that share memory are written as often as they are
    named. Large types come first, then names in order, so that every tensor lies where its type
    fits.

    Args:
        tensors: By their names. Those on a device are copied from there, one after the other.
        path: The file, whose folder must exist; or ``s3://bucket/key``.
        metadata: Texts that the file keeps.
        store: How to write: a FileSystemConfig for files, an S3Config for a bucket, or what
            ``open_store`` gives. None: the defaults.

    Raises:
        ConfigError: A name, a type or a layout that the format does not have.
        NoSpaceError, WriteError, ...: As of FileStore.writer.
    """
    order = sorted(tensors.items(), key=_order)
    header = json.dumps(_header(order, metadata), separators=(",", ":"), ensure_ascii=False)
    text = header.encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    size = _LENGTH_BYTES + len(text) + sum(tensor.nbytes for _, tensor in order)
    to = store_for(path_text(path), store)
    with to.writer(path_text(path), size_bytes=size) as file:
        file.write(len(text).to_bytes(_LENGTH_BYTES, "little") + text)
        for _, tensor in order:
            file.write(as_bytes(bytes_of(tensor.detach().cpu().contiguous())), copy=False)


def _order(item: tuple[str, torch.Tensor]) -> tuple[int, str]:
    name, tensor = item
    if not isinstance(name, str) or name == "__metadata__":
        raise ConfigError(f"{name!r} cannot name a tensor: it must be a str, not '__metadata__'")
    if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
        raise ConfigError(f"{short(name)}: only dense tensors are written, not {short(tensor)}")
    if tensor.dtype not in _NAMES:
        raise ConfigError(f"{short(name)}: {tensor.dtype} is no type of safetensors")
    return -tensor.dtype.itemsize, name


def _header(
    order: list[tuple[str, torch.Tensor]], metadata: Mapping[str, str] | None
) -> dict[str, Any]:
    header: dict[str, Any] = {}
    if metadata:
        if not all(isinstance(text, str) for item in metadata.items() for text in item):
            raise ConfigError(f"metadata must be texts by their names, not {short(metadata)}")
        header["__metadata__"] = dict(metadata)
    end = 0
    for name, tensor in order:
        begin, end = end, end + tensor.nbytes
        shape = list(tensor.shape)
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": shape, "data_offsets": [begin, end]}
    return header
