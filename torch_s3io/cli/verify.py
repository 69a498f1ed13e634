"""``verify``: whether data is what was written, by its checksums."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from typing import Any

from ..errors import DataError, Error
from ..files import shard_path
from ..manifest import MANIFEST_NAME, read_manifest
from ..record_writer import WRITE_CONFIG
from ..store import FileStore
from .console import progress


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "verify",
        help="whether data is what was written, by its checksums",
        description="Reads data sets and files and compares them with the checksums of their "
        "manifest, or of the attribute that FileStore keeps. Exit status 0 if all are as they "
        "were written, 1 if not.",
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="folders of records, or files")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    failures = 0
    for path in args.paths:
        if os.path.isdir(path):
            failures += _verify_folder(path)
        else:
            failures += _verify_files(path, [(path, _kept(path))])
    return 1 if failures else 0


def _verify_folder(folder: str) -> int:
    manifest = read_manifest(folder)
    wanted = []
    for shard in manifest.shards:
        wanted.append((shard_path(folder, shard.name), (shard.size_bytes, shard.crc32c)))
    own = os.path.join(folder, MANIFEST_NAME)
    with contextlib.suppress(DataError):  # the manifest need not keep a checksum
        wanted.append((own, _kept(own)))
    return _verify_files(folder, wanted)


def _kept(path: str) -> tuple[int, int]:
    store = FileStore(WRITE_CONFIG)
    kept = store.kept_checksum(path)
    if kept is None:
        raise DataError(
            f"{path}: keeps no checksum: FileStore did not write it, it was changed since, or its "
            "file system has no attributes"
        )
    return store.stat(path).size_bytes, kept


def _verify_files(what: str, wanted: list[tuple[str, tuple[int, int]]]) -> int:
    store = FileStore(WRITE_CONFIG)
    wrong = total = 0
    for path, (size_bytes, crc32c) in progress(wanted, len(wanted), f"reading {what}", "file"):
        for text in _differences(store, path, size_bytes, crc32c):
            print(text)
            wrong += 1
        total += size_bytes
    verdict = f"{wrong} of them damaged or missing" if wrong else "all as they were written"
    print(f"{what}: {len(wanted)} file(s), {total / 1e9:.3f} GB: {verdict}")
    return wrong


def _differences(store: FileStore, path: str, size_bytes: int, crc32c: int) -> Iterator[str]:
    try:
        size = store.stat(path).size_bytes
        if size != size_bytes:
            yield f"{path}: DAMAGED: has {size} bytes, not {size_bytes}"
            return
        found = store.checksum(path)
    except Error as error:
        yield f"UNREADABLE: {error}"
        return
    if found != crc32c:
        yield f"{path}: DAMAGED: its checksum is {found:08x}, not {crc32c:08x}"
