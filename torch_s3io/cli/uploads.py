"""``uploads``: uploads into a bucket that nobody has finished, listed and aborted."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

from ..console import note, say
from ..errors import ConfigError, Error, ReadError
from ..store.open import open_store
from ..store.stores import scheme_of
from ..wording import count_of, printable, short
from .store_option import add_store_option

if TYPE_CHECKING:
    from ..store.s3_store import OpenUpload, S3Store

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"(\d{1,9})([smhd])")

_EPILOG = """\
examples:
  %(prog)s s3://bucket                             all of a bucket
  %(prog)s s3://bucket/train/ --abort-older 1d     aborts those that were begun a day ago or before
  %(prog)s s3://bucket/large.bin --abort-older 0s  aborts all of what begins with this name

A long object is sent in parts. Until its writer has finished it, these are an upload: no list of
objects shows it, and it costs money. A writer that fails aborts its upload. One that was killed
cannot, nor one that could not reach the server.

A writer that is still at work fails when its upload is aborted: give a time in which the longest
write is done. A rule of the bucket (AbortIncompleteMultipartUpload) does the same by itself.

MinIO does not list by what names begin with: give the whole name of an object there, or rely on
such a rule.

The bucket is reached as AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL
say, and --store. The policy of the keys must allow s3:ListBucketMultipartUploads and
s3:AbortMultipartUpload.

exit status:
  0  listed, and aborted as asked     1  some could not be: a line on stderr says why
  2  wrong usage                      130  Ctrl-C
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "uploads",
        help="uploads into a bucket that nobody has finished",
        description="Lists uploads of the objects whose names begin with PREFIX: how old each is, "
        "its object and its id.\nNothing is changed without --abort-older.",
        epilog=_EPILOG,
    )
    parser.add_argument("prefix", metavar="PREFIX", help="s3://bucket, or what names begin with")
    parser.add_argument(
        "--abort-older",
        type=_seconds,
        metavar="TIME",
        help="abort those that were begun so long ago, or before: 90s, 30m, 12h, 7d",
    )
    add_store_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if scheme_of(args.prefix) != "s3":
        raise ConfigError(f"{printable(args.prefix)}: name a bucket, as s3://bucket/prefix")
    store: Any = open_store(args.prefix)
    uploads = store.uploads(args.prefix)
    count = count_of(len(uploads), "upload")
    say(f"{args.prefix}: {count} that nobody has finished")
    if args.abort_older is not None and any(upload.age_s is None for upload in uploads):
        raise ReadError(
            f"{args.prefix}: nothing was aborted: the server does not say what time it is (Date), "
            "and by the clock of this machine an upload at work may look old. S3Store.abort_upload "
            "aborts the one it is given"
        )
    failed = 0
    for upload in uploads:
        text = f"{_age_text(upload.age_s):>8}  {upload.path}  id {upload.upload_id}"
        if args.abort_older is None:
            say(text)
        elif upload.age_s < args.abort_older:
            say(f"kept     {text}")
        elif _is_aborted(store, upload):
            say(f"aborted  {text}")
        else:
            failed += 1
    if uploads and args.abort_older is None:
        say("nothing was aborted: --abort-older 1d aborts those that are a day old or older")
    return 1 if failed else 0


def _is_aborted(store: S3Store, upload: OpenUpload) -> bool:
    """Says why not."""
    try:
        store.abort_upload(upload)
    except Error as error:
        note(f"{upload.path}: the upload {upload.upload_id} is not aborted: {error}")
        return False
    return True


def _age_text(seconds: int | None) -> str:
    """In the largest unit of which there are two at least."""
    if seconds is None:
        return "?"
    unit = next((unit for unit, size in reversed(_UNITS.items()) if seconds >= 2 * size), "s")
    return f"{seconds // _UNITS[unit]} {'min' if unit == 'm' else unit}"


def _seconds(text: str) -> int:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{short(text)} is no time such as 90s, 30m, 12h or 7d")
    return int(match[1]) * _UNITS[match[2]]
