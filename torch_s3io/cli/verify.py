"""``verify``: whether data is what was written, by its checksums."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from ..console import progress, say, show_progress
from ..errors import ConfigError, DataError, Error, NotFoundError
from ..format.manifest import MANIFEST_NAME
from ..format.samples import SampleManifest, SampleShard, read_any_manifest
from ..store.file_store import FileStore
from ..store.key_patterns import is_pattern
from ..store.stores import scheme_of, store_of
from ..wording import count_of, size_text
from ..writing.folder_writer import WRITE_CONFIG
from .sample_checks import table_differences
from .store_option import add_store_option

_TARS = "tar archives have no checksums of ours to compare; compare those of who made them"
_EPILOG = """\
examples:
  %(prog)s packed                     a data set of pack or of a writer
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
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="folders of data sets, in a bucket too, or files"
    )
    add_store_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    bad = sum(not _is_whole(path) for path in args.paths)
    if len(args.paths) > 1:
        say(f"damaged, missing or not verified: {bad} of {len(args.paths)} paths")
    return 1 if bad else 0


def _is_whole(path: str) -> bool:
    """Whether all of it is as it was written; says what is not, or why that cannot be told."""
    try:
        wanted = _wanted(path)
    except Error as error:
        say(f"NOT VERIFIED: {error}")
        return False
    return _verify_files(path, wanted) == 0


class _Wanted(NamedTuple):
    """A file as it was written; ``more`` says what else is wrong, once it is known whether its
    checksum is another one."""

    path: str
    size_bytes: int
    crc32c: int
    more: Callable[[bool], Iterator[str]] | None = None


def _wanted(path: str) -> list[_Wanted]:
    store = store_of(path)
    if store.is_folder(path):
        return _in_folder(path)
    if is_pattern(path) and (scheme_of(path) or not os.path.lexists(path)):
        hint = f": {_TARS}" if path.endswith(".tar") else ""
        raise ConfigError(f"{path}: is a pattern; name folders of data sets, or files{hint}")
    return [_Wanted(path, *_kept(path))]


def _in_folder(folder: str) -> list[_Wanted]:
    """The files of a data set."""
    try:
        manifest = read_any_manifest(folder)
    except NotFoundError:
        if any(file.endswith(".tar") for file in store_of(folder).below(folder)):
            raise DataError(f"{folder}: {_TARS}") from None
        raise
    wanted = []
    for shard in manifest.shards:
        path = os.path.join(folder, shard.name)
        more = None
        if isinstance(manifest, SampleManifest) and isinstance(shard, SampleShard):
            more = partial(table_differences, path, shard, manifest)
        wanted.append(_Wanted(path, shard.size_bytes, shard.crc32c, more))
    own = os.path.join(folder, MANIFEST_NAME)
    with contextlib.suppress(DataError):  # the manifest need not keep a checksum
        wanted.append(_Wanted(own, *_kept(own)))
    return wanted


def _kept(path: str) -> tuple[int, int]:
    if scheme_of(path):
        raise DataError(
            f"{path}: is a single object, and only those of a folder have checksums in a manifest; "
            "open_store(path).checksum(path) compares it with that of its server, if it has one"
        )
    store = FileStore(WRITE_CONFIG)
    kept = store.kept_checksum(path)
    if kept is None:
        raise DataError(
            f"{path}: keeps no checksum: FileStore did not write it, it was changed since, or its "
            "file system has no attributes"
        )
    return store.stat(path).size_bytes, kept


def _verify_files(what: str, wanted: list[_Wanted]) -> int:
    wrong = total = 0
    for file in progress(wanted, len(wanted), f"reading {what}", "file"):
        texts = list(_differences(file))
        for text in texts:
            show_progress("")
            say(text)
        wrong += bool(texts)
        total += file.size_bytes
    verdict = f"{wrong} of them damaged or missing" if wrong else "all as they were written"
    say(f"{what}: {count_of(len(wanted), 'file')}, {size_text(total)}: {verdict}")
    return wrong


def _differences(file: _Wanted) -> Iterator[str]:
    try:
        size = store_of(file.path).inspect([file.path])[0].size_bytes
        if size != file.size_bytes:
            yield f"{file.path}: DAMAGED: has {size} bytes, not {file.size_bytes}"
            return
        found = _checksum_of(file.path)
    except Error as error:
        yield f"UNREADABLE: {error}"
        return
    if found != file.crc32c:
        yield f"{file.path}: DAMAGED: its checksum is {found:08x}, not {file.crc32c:08x}"
    if file.more is not None:
        yield from file.more(found != file.crc32c)


def _checksum_of(path: str) -> int:
    if not scheme_of(path):
        return FileStore(WRITE_CONFIG).checksum(path)
    from ..store.s3_objects import the_s3_objects

    # Not compared with the server's: what differs from the manifest is told of in detail.
    return the_s3_objects().buckets.reads(path).checksum(path, compares=False)
