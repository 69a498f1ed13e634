"""``verify``: whether data is what was written, by its checksums."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from typing import Any

from ..console import progress, say, show_progress
from ..errors import DataError, Error
from ..format.manifest import MANIFEST_NAME, read_manifest
from ..store.file_store import FileStore
from ..wording import count_of, size_text
from ..writing.folder_writer import WRITE_CONFIG

_EPILOG = """\
examples:
  %(prog)s packed                     a data set of pack or of a RecordWriter
  %(prog)s checkpoints/*.bin          files that FileStore wrote

exit status:
  0  all are as they were written     1  some are not, or it cannot be told: the output says which
  2  wrong usage                      130  Ctrl-C
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "verify",
        help="whether data is what was written, by its checksums",
        description="Reads data sets and files whole and compares them with the checksums of "
        "their manifest, or of the attribute\nthat FileStore keeps. All are looked at, whatever "
        "becomes of the first ones.",
        epilog=_EPILOG,
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="folders of records, or files")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    bad = sum(not _is_whole(path) for path in args.paths)
    if len(args.paths) > 1:
        say(f"damaged, missing or not verified: {bad} of {len(args.paths)} paths")
    return 1 if bad else 0


def _is_whole(path: str) -> bool:
    """Whether all of it is as it was written; says what is not, or why that cannot be told."""
    try:
        wanted = _in_folder(path) if os.path.isdir(path) else [(path, _kept(path))]
    except Error as error:
        say(f"NOT VERIFIED: {error}")
        return False
    return _verify_files(path, wanted) == 0


def _in_folder(folder: str) -> list[tuple[str, tuple[int, int]]]:
    """Path, size and checksum of the files of a data set."""
    manifest = read_manifest(folder)
    wanted = []
    for shard in manifest.shards:
        wanted.append((os.path.join(folder, shard.name), (shard.size_bytes, shard.crc32c)))
    own = os.path.join(folder, MANIFEST_NAME)
    with contextlib.suppress(DataError):  # the manifest need not keep a checksum
        wanted.append((own, _kept(own)))
    return wanted


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
            show_progress("")
            say(text)
            wrong += 1
        total += size_bytes
    verdict = f"{wrong} of them damaged or missing" if wrong else "all as they were written"
    say(f"{what}: {count_of(len(wanted), 'file')}, {size_text(total)}: {verdict}")
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
