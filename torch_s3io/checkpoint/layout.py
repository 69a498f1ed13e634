"""How a checkpoint of ``torch.distributed.checkpoint`` lies in a folder, or under a prefix.

A file of each rank has the bytes of its tensors and objects, one behind the other, each at a
multiple of 64 bytes. ``.metadata`` says where, and comes last: it is the checkpoint. It is a
pickle, as DCP has it. It is read by an unpickler that knows the classes of such a file alone.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from ..errors import DataError
from ..wording import short

ALIGNMENT = 64
METADATA_NAME = ".metadata"
MOST_METADATA_BYTES = 1 << 30
_FILE_NAME = re.compile(r"__[0-9]+_[0-9a-f]{16}\.distcp")
# What a metadata file is made of, by module.
_KNOWN = {
    "torch.distributed.checkpoint.metadata": {
        *("Metadata", "MetadataIndex", "TensorStorageMetadata", "BytesStorageMetadata"),
        *("ChunkStorageMetadata", "TensorProperties", "StorageMeta", "_MEM_FORMAT_ENCODING"),
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch_s3io.checkpoint.layout": {"Place"},
    "torch": {"Size", "strided"},
    "torch.serialization": {"_get_layout"},
    "collections": {"OrderedDict"},
    "pathlib": {"PosixPath", "Path", "PurePosixPath"},
    "pathlib._local": {"PosixPath", "Path", "PurePosixPath"},
}


@dataclass(frozen=True)
class Place:
    """Where a tensor, or the bytes of an object, lie.

    Attributes:
        file: Its name in the folder.
        offset: Of the first byte.
        length: In bytes.
        dtype: Of a tensor; None: it is an object.
        shape: Of a tensor.
        crc32c: Of the bytes.
    """

    file: str
    offset: int
    length: int
    dtype: torch.dtype | None
    shape: tuple[int, ...]
    crc32c: int

    def check(self, folder: str) -> None:
        """Raises DataError where the values cannot be of a checkpoint."""
        is_well = is_data_name(self.file) and isinstance(self.shape, tuple)
        numbers = (self.offset, self.length, self.crc32c, *(self.shape if is_well else ()))
        is_well = (
            is_well
            and all(type(number) is int and 0 <= number < 1 << 62 for number in numbers)
            and (self.dtype is None or isinstance(self.dtype, torch.dtype))
        )
        if is_well and self.dtype is not None:
            is_well = math.prod(self.shape) * self.dtype.itemsize == self.length
        if not is_well:
            raise DataError(f"{folder}/{METADATA_NAME}: {short(str(self))} is no place of a tensor")


def data_name(rank: int, token: str) -> str:
    """The file of a rank; ``token``: 16 hexadecimal digits, others for each save."""
    return f"__{rank}_{token}.distcp"


def is_data_name(name: Any) -> bool:
    return isinstance(name, str) and _FILE_NAME.fullmatch(name) is not None


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, path: str) -> None:
        super().__init__(io.BytesIO(data))
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if is_dtype or name in _KNOWN.get(module, ()):
            return super().find_class(module, name)
        raise DataError(
            f"{self._path}: holds a {module}.{name}, which is no part of a checkpoint's metadata; "
            "torch.distributed.checkpoint.FileSystemReader reads any, if you trust it"
        )


def read_metadata(data: bytes, path: str) -> Metadata:
    """The metadata, of which the places are yet to be checked.

    Raises:
        DataError: It is damaged, or holds what no metadata has.
    """
    try:
        metadata = _Unpickler(data, path).load()
    except DataError:
        raise
    except Exception as error:  # a pickle can fail in any way
        _refuse(path, f"it is no metadata of a checkpoint ({short(repr(error))})")
    if not isinstance(metadata, Metadata):
        _refuse(path, "it is no metadata of a checkpoint")
    if not isinstance(metadata.storage_data, dict) or not metadata.state_dict_metadata:
        _refuse(path, "it does not say where tensors lie")
    described = metadata.state_dict_metadata
    if not isinstance(described, dict) or not all(map(_describes_a_value, described.values())):
        _refuse(path, "it does not say what is in the checkpoint")
    if not isinstance(metadata.storage_meta, StorageMeta | None):
        _refuse(path, "it does not say which save it is of")
    return metadata


def _describes_a_value(one: Any) -> bool:
    if not isinstance(one, TensorStorageMetadata):
        return isinstance(one, BytesStorageMetadata)
    return (
        isinstance(one.properties, TensorProperties)
        and isinstance(one.properties.dtype, torch.dtype)
        and isinstance(one.size, torch.Size)
        and isinstance(one.chunks, list)
        and all(map(_is_chunk, one.chunks))
    )


def _is_chunk(one: Any) -> bool:
    return (
        isinstance(one, ChunkStorageMetadata)
        and isinstance(one.offsets, torch.Size)
        and isinstance(one.sizes, torch.Size)
        and len(one.offsets) == len(one.sizes)
    )


def _refuse(path: str, why: str) -> NoReturn:
    raise DataError(f"{path}: {why}; copy the checkpoint again, or load an older one")


def rows_of(place: Place, offsets: Sequence[int], lengths: Sequence[int]) -> tuple[int, int]:
    """The bytes ``[begin, end)``, of those of the tensor, that a part of it lies in: whole rows."""
    if not place.shape:
        return 0, place.length
    row = math.prod(place.shape[1:]) * place.length // max(1, math.prod(place.shape))
    return offsets[0] * row, (offsets[0] + lengths[0]) * row
