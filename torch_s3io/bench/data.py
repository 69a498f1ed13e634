"""The files that a benchmark reads: seeded, incompressible, made if they are absent; their place
in the page cache."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ..config import MIB
from ..errors import ConfigError
from ..wording import size_text
from .config import DataConfig

_WRITE_BYTES = 16 * MIB
_SPARE_BYTES = 256 * MIB  # never fill a disk to its end


def folder_of(data: DataConfig) -> Path:
    """Named by what decides the bytes, so that configurations share what they have in common."""
    return Path(os.path.expanduser(data.folder)) / _folder_name(data)


def _folder_name(data: DataConfig) -> str:
    return f"{data.records_per_file}x{data.record_bytes}B-seed{data.seed}"


def names_of(data: DataConfig) -> list[str]:
    """The paths of all files, or objects of a bucket."""
    if not data.is_in_bucket:
        return list(map(str, paths_of(data)))
    folder = f"{data.folder.rstrip('/')}/{_folder_name(data)}"
    return [f"{folder}/{number}.bin" for number in range(data.files)]


def paths_of(data: DataConfig) -> list[Path]:
    """Named as fio counts files, from 0.bin on."""
    folder = folder_of(data).absolute()
    return [folder / f"{number}.bin" for number in range(data.files)]


def missing(data: DataConfig) -> list[tuple[int, Path]]:
    """Number and path of the files that are absent, or not of their size."""
    return [
        (number, path)
        for number, path in enumerate(paths_of(data))
        if not os.path.isfile(path) or os.path.getsize(path) != data.file_bytes
    ]


def check_space(data: DataConfig) -> None:
    """Raises ConfigError where the missing files do not fit onto the disk."""
    folder = folder_of(data).absolute()
    needed = len(missing(data)) * data.file_bytes
    there = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    free = shutil.disk_usage(there).free
    if needed and needed + _SPARE_BYTES > free:
        raise ConfigError(
            f"data: the files that are missing in {folder} take {size_text(needed)}, but only "
            f"{size_text(free)} are free; lower data.files, or choose another data.folder"
        )


@contextlib.contextmanager
def folder_made(folder: Path, setting: str) -> Iterator[Path]:
    """The folder, made with those above it; gone again at the end where nothing came into it.

    Raises:
        ConfigError: It cannot be made, or not be written to. The text names the setting.
    """
    above = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    try:  # an interrupt may come at any step
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{setting}: cannot make {folder}: {error.strerror}") from None
        if not os.access(folder, os.W_OK):
            raise ConfigError(f"{setting}: {folder} may not be written to by this user")
        yield folder
    finally:
        for path in above:
            with contextlib.suppress(OSError):  # something is in it
                path.rmdir()


def make(data: DataConfig, files: Iterator[tuple[int, Path]]) -> None:
    """Writes these files, each whole or not at all."""
    with folder_made(folder_of(data), "data.folder"):
        for number, path in files:
            partial = path.with_suffix(".partial")
            try:
                with partial.open("wb") as file:
                    for block in blocks(data, number):
                        file.write(block)
                    file.flush()
                    os.fsync(file.fileno())
                partial.rename(path)
            except OSError as error:
                raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None
            finally:
                partial.unlink(missing_ok=True)


def blocks(data: DataConfig, number: int) -> Iterator[bytes]:
    """The bytes of one file, in pieces."""
    random = np.random.Generator(np.random.SFC64([data.seed, number]))
    for begin in range(0, data.file_bytes, _WRITE_BYTES):
        yield random.bytes(min(_WRITE_BYTES, data.file_bytes - begin))


def drop_from_cache(paths: list[Path]) -> None:
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())  # dirty pages cannot be dropped
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def bring_into_cache(paths: list[Path]) -> None:
    buffer = bytearray(MIB)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


CACHE_STATES: dict[str, Callable[[list[Path]], None]] = {
    "cold": drop_from_cache,
    "warm": bring_into_cache,
    "leave": lambda paths: None,
}
