"""Tar archives, written by tarfile; and their samples, as tarfile finds them."""

from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from torch_s3io import SampleDataset

Files = dict[str, bytes]


def write_tar(path: Path, files: Files, format: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format, errors="surrogateescape") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mtime = 1.5 if format == tarfile.PAX_FORMAT else 1
            archive.addfile(info, io.BytesIO(data))
    return path


def samples_of(paths: list[Path]) -> list[tuple[str, Files]]:
    """Keys and fields, by tarfile and the regular expression of webdataset."""
    found: list[tuple[str, Files]] = []
    for path in paths:
        with tarfile.open(path, encoding="utf-8", errors="surrogateescape") as archive:
            keys: list[str] = []
            for member in archive:
                match = re.match(r"^((?:.*/|)[^.]+)[.]([^/]*)$", member.name)
                file = archive.extractfile(member)
                assert match is not None
                assert file is not None
                if match[1] not in keys:
                    keys.append(match[1])
                    found.append((match[1], {}))
                found[-1][1][match[2].lower()] = file.read()
    return found


def read_samples(dataset: SampleDataset, **options: Any) -> list[tuple[str, Files]]:
    """The same, as the data set says; of fields that are missing, none."""
    found = []
    for batch in dataset.with_options(**options) if options else dataset:
        fields = [name for name in batch if name != "key"]
        rows = [[bytes(one.numpy()) for one in batch[name]] for name in fields]
        for key, *row in zip(batch["key"], *rows, strict=True):
            found.append((key, dict(zip(fields, row, strict=True))))
    return found


def numbered(count: int, first: int = 0) -> Files:
    files = {}
    for number in range(first, first + count):
        files[f"{number:04}.jpg"] = bytes([number % 256]) * (number * 37 % 900)
        files[f"{number:04}.cls"] = f"{number}\n".encode()
        if number % 3 == 0:
            files[f"{number:04}.json"] = json.dumps({"number": number}).encode()
    return files


def write_shards(tmp_path: Path) -> list[Path]:
    """Three archives of 10 samples each."""
    folder = tmp_path / "shards"
    folder.mkdir()
    return [write_tar(folder / f"{n:03}.tar", numbered(10, 10 * n)) for n in range(3)]


def write_headers(path: Path, count: int) -> Path:
    """An archive of empty members, two a sample: 00000000.jpg, 00000000.cls, 00000001.jpg, ..."""
    header = np.frombuffer(tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT), np.uint8)
    numbers = np.arange(count)
    blocks = np.tile(header, (count, 1))
    blocks[:, :8] = digits(numbers // 2, 10, 8)
    blocks[:, 8:12] = np.frombuffer(b".jpg.cls", np.uint8).reshape(2, 4)[numbers % 2]
    blocks[:, 148:156] = 32  # as which the checksum counts itself
    sums = digits(blocks.sum(axis=1, dtype=np.int64), 8, 6)
    blocks[:, 148:154] = sums
    blocks[:, 154] = 0
    path.write_bytes(blocks.tobytes() + bytes(1024))
    return path


def digits(numbers: np.ndarray, base: int, width: int) -> np.ndarray:
    return 48 + numbers[:, None] // base ** np.arange(width)[::-1] % base
