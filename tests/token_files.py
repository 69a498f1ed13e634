"""Files of tokens, written with nothing but struct and numpy; and what lies in them."""

from __future__ import annotations

import gzip
import itertools
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torch_s3io import TokenDataset

MEGATRON_TYPES = {"u1": 1, "i1": 2, "<i2": 3, "<i4": 4, "<i8": 5, "<f8": 6, "<f4": 7, "<u2": 8}


def numbered(lengths: list[int], dtype: str = "<i4", first: int = 0) -> list[np.ndarray]:
    """Documents of these lengths, whose tokens are numbered through all of them."""
    ends = list(itertools.accumulate(lengths, initial=first))
    return [np.arange(a, b).astype(dtype) for a, b in itertools.pairwise(ends)]


def joined(documents: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, documents[0].dtype if documents else "u2"), *documents])


def megatron_index(
    lengths: list[int],
    code: int,
    offsets: list[int],
    documents: list[int] | None = None,
    modes: bytes = b"",
) -> bytes:
    """``documents``: of each the first sequence, and the number of all; None: each is one."""
    count = len(lengths)
    documents = list(range(count + 1)) if documents is None else documents
    return (
        struct.pack("<9sQBQQ", b"MMIDIDX\0\0", 1, code, count, len(documents))
        + struct.pack(f"<{count}i", *lengths)
        + struct.pack(f"<{count}q", *offsets)
        + struct.pack(f"<{len(documents)}q", *documents)
        + modes
    )


def write_megatron(
    prefix: Path,
    sequences: list[np.ndarray],
    dtype: str = "<i4",
    documents: list[int] | None = None,
) -> Path:
    """The ``.bin``."""
    lengths = [len(one) for one in sequences]
    sizes = [length * np.dtype(dtype).itemsize for length in lengths]
    offsets = list(itertools.accumulate(sizes, initial=0))[:-1]
    data = b"".join(one.astype(dtype).tobytes() for one in sequences)
    path = prefix.with_name(prefix.name + ".bin")
    path.write_bytes(data)
    index = megatron_index(lengths, MEGATRON_TYPES[dtype], offsets, documents)
    prefix.with_name(prefix.name + ".idx").write_bytes(index)
    return path


def write_llm_c(path: Path, tokens: np.ndarray, magic: int = 20240520) -> Path:
    version, kind = {20240520: (1, "<u2"), 20240801: (7, "<u4")}.get(magic, (1, "<u2"))
    header = np.zeros(256, "<i4")
    header[:3] = magic, version, len(tokens)
    path.write_bytes(header.tobytes() + tokens.astype(kind).tobytes())
    return path


def write_datatrove(path: Path, documents: list[np.ndarray], kind: str = "<u2") -> Path:
    path.write_bytes(joined(documents).astype(kind).tobytes())
    ends = np.cumsum([len(one) for one in documents], dtype="<u8")
    Path(f"{path}.index").write_bytes(ends.tobytes())
    Path(f"{path}.metadata").write_text(f"gpt2|2\n{len(documents)}")
    return path


def write_listed(path: Path, documents: list[np.ndarray], kind: str = "<u2") -> Path:
    """Raw, with a list of the documents."""
    path.write_bytes(joined(documents).astype(kind).tobytes())
    ends = list(itertools.accumulate(map(len, documents), initial=0))
    lines = "".join(f"{a},{b},id{a},part.json.gz\n" for a, b in itertools.pairwise(ends))
    path.with_suffix(".csv.gz").write_bytes(gzip.compress(lines.encode()))
    return path


def write_ended(path: Path, documents: list[np.ndarray], eos: int, kind: str = "<u2") -> Path:
    """Raw; each document must end with ``eos``, which comes nowhere else."""
    path.write_bytes(joined(documents).astype(kind).tobytes())
    return path


def cut(stream: np.ndarray, window: int, stride: int) -> list[list[int]]:
    """Concat and cut, in plain Python."""
    tokens, windows = stream.tolist(), []
    for begin in range(0, len(tokens) - window + 1, stride):
        windows.append(tokens[begin : begin + window])
    return windows


def flat(batches: Any) -> list[list[int]]:
    """The rows of all batches."""
    return [row for batch in batches for row in batch.tolist()]


def documents_in(paths, **options) -> list[list[int]]:
    dataset = TokenDataset(paths, documents="single", batch_size=3, pool=None, **options)
    return [document.tolist() for batch in dataset for document in batch]


def as_lists(documents: list[np.ndarray]) -> list[list[int]]:
    return [document.tolist() for document in documents]


def refused(error, match: str, paths, **options) -> None:
    with pytest.raises(error, match=match):
        TokenDataset(paths, documents="single", **options)


def changed(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]
