"""`.npy` files that are made by hand, and arrays read from such files."""

from __future__ import annotations

import struct

import torch

from torch_s3io import RecordDataset


def by_hand(
    descr: str, shape: str, body: bytes, *, major: int = 1, fortran: str = "False"
) -> bytes:
    """A .npy file as NEP 1 describes it, with any text for its parts."""
    header = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}".encode()
    length_format = "<H" if major == 1 else "<I"
    used = 8 + struct.calcsize(length_format) + len(header) + 1
    header += b" " * (-used % 64) + b"\n"
    prefix = b"\x93NUMPY" + bytes([major, 0]) + struct.pack(length_format, len(header))
    return prefix + header + body


def read_whole(path, **options):
    return torch.cat(list(RecordDataset.from_npy(path, **options)))
