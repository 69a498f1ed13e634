"""Writes the examples' data: files that belong together, and only when they are not there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
from common import bytes_text

SHARD_BYTES = 256_000_000
MIN_SHARDS = 4
MANIFEST = "torch_s3io_example.json"


def shard_sizes(prefix: str, total_bytes: int, unit_bytes: int) -> dict[str, int]:
    """Names and sizes of the files that hold total_bytes, cut at multiples of unit_bytes."""
    units = total_bytes // unit_bytes
    count = min(units, max(MIN_SHARDS, -(-total_bytes // SHARD_BYTES)))
    bounds = [units * shard // count for shard in range(count + 1)]
    return {
        f"{prefix}-{shard:05d}.bin": (bounds[shard + 1] - bounds[shard]) * unit_bytes
        for shard in range(count)
    }


def write_shards(
    folder: Path, sizes: dict[str, int], pieces: Iterable[npt.NDArray[Any]], **settings: object
) -> None:
    """Fills files of these sizes with the pieces, one after the other.

    Does nothing when the folder holds them already. A manifest, written first, says which files
    belong together and what they were made from; each file gets its name only when it is whole.
    """
    manifest = {"settings": settings, "files": sizes}
    path = folder / MANIFEST
    old = json.loads(path.read_text()) if path.exists() else {"settings": {}, "files": {}}
    if old == manifest and all(
        (folder / name).is_file() and (folder / name).stat().st_size == size
        for name, size in sizes.items()
    ):
        print(f"data: {folder}: {bytes_text(sum(sizes.values()))}, already there")
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name in old["files"]:
        (folder / name).unlink(missing_ok=True)
        _partial(folder / name).unlink(missing_ok=True)
    _partial(path).write_text(json.dumps(manifest, indent=1))
    os.replace(_partial(path), path)

    source = iter(pieces)
    left = memoryview(b"")
    with progress_bar(f"writing {folder}", sum(sizes.values())) as bar:
        for name, size in sizes.items():
            with _partial(folder / name).open("wb") as file:
                while (wanted := size - file.tell()) > 0:
                    if not left:
                        left = memoryview(next(source).ravel().view(np.uint8).data)
                    bar.update(file.write(left[:wanted]))
                    left = left[wanted:]
            os.replace(_partial(folder / name), folder / name)
    print(f"data: {folder}: {bytes_text(sum(sizes.values()))} in {len(sizes)} files, written now")


def _partial(path: Path) -> Path:
    """The name of a file that is being written."""
    return path.with_name(f"{path.name}.partial")


def progress_bar(title: str, total_bytes: int) -> Any:
    """A progress bar on a terminal when tqdm is installed, and else nothing."""
    try:
        from tqdm import tqdm
    except ImportError:
        return nullcontext(SimpleNamespace(update=lambda count: None))
    return tqdm(desc=title, total=total_bytes, unit="B", unit_scale=True, disable=None)
