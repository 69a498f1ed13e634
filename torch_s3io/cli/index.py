"""``index``: finds the records of data ahead, so that no program has to wait for it."""

from __future__ import annotations

import argparse
import os
import warnings
from typing import Any

from ..console import note, say
from ..errors import AccessError, ConfigError, DataError
from ..format.index_kinds import kind_for
from ..index.column_file import ColumnFile
from ..index.in_bucket import StaleIndexWarning, put_index
from ..index.place import Where
from .index_facts import index_as_text
from .store_option import add_store_option

_EPILOG = """\
examples:
  %(prog)s shards/                      all .tar files in a folder, and in those below it
  %(prog)s 'shards/{000..999}.tar'      as in SampleDataset.from_tar
  %(prog)s 'volumes/*.npz' --fields x,y  as in SampleDataset.from_npz(..., fields=("x", "y"))
  %(prog)s shards/*.tar --place /fast   the index lies in /fast; then index="/fast" in the program
  %(prog)s 's3://bucket/shards/*.tar'    the index is an object beside the shards, for all machines

The index of shards in a bucket is put beside them. Each machine that reads the shards copies it
into its cache folder, and reads no headers. Where the bucket may not be written to, the index is in
the cache folder of this user alone. The bucket is reached as AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL say, and --store.

exit status:
  0  the index is there, and holds     1  it cannot be made: a line on stderr says why
  2  wrong usage                       130  Ctrl-C
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "index",
        help="find the samples of data ahead of the first program that reads them",
        description="Makes the index of a data set: where its samples are. A program makes it by "
        "itself where it is not there,\nwhich takes longer the more data there are. All paths "
        "together are one data set, as they are in the program.\nArchives that have not changed "
        "since are not read again.\nAn index that is there is compared with its checksums, and "
        "made again where it is damaged.",
        epilog=_EPILOG,
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="archives, patterns, or folders")
    parser.add_argument(
        "--place",
        metavar="PATH",
        help="a file or folder for the index, or a folder in a bucket; else it lies beside the "
        "data, or where these cannot be written to in the user's cache folder",
    )
    parser.add_argument(
        "--fields",
        metavar="NAME,...",
        type=lambda text: text.split(","),
        default=[],
        help="of .npz archives: the arrays that the program reads",
    )
    add_store_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    kind = kind_for(args.paths)
    where: Where = True if args.place is None else args.place
    if args.fields and not kind.has_fields:
        raise ConfigError(f"--fields is for .npz archives, and these are {kind.data}: leave it out")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StaleIndexWarning)  # this puts a new one there
        file = kind.make(args.paths, where, args.fields)
    if not file.path:
        raise AccessError("the index cannot be written: name another place by --place PATH")
    try:
        file.check()
    except DataError:
        os.unlink(file.path)
        file = kind.make(args.paths, where, args.fields)
    if file.in_bucket and _is_put(file, must_be=args.place is not None):
        say(f"{file.in_bucket}, of which this machine has a copy:")
    say(*index_as_text(file))
    return 0


def _is_put(file: ColumnFile, must_be: bool) -> bool:
    """Says where it may not be written.

    Raises:
        AccessError: So, and it must be.
    """
    try:
        put_index(file)
    except AccessError as error:
        if must_be:
            raise
        note(f"the index is in the cache folder of this user alone: {error}")
        return False
    return True
