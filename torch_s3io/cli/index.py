"""``index``: finds the records of data ahead, so that no program has to wait for it."""

from __future__ import annotations

import argparse
import os
from typing import Any

from ..console import say
from ..errors import AccessError, ConfigError, DataError
from ..format.index_kinds import kind_for
from ..index.place import Where
from .index_facts import index_as_text

_EPILOG = """\
examples:
  %(prog)s shards/                      all .tar files in a folder, and in those below it
  %(prog)s 'shards/{000..999}.tar'      as in SampleDataset.from_tar
  %(prog)s 'volumes/*.npz' --fields x,y  as in SampleDataset.from_npz(..., fields=("x", "y"))
  %(prog)s shards/*.tar --place /fast   the index lies in /fast; then index="/fast" in the program

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
        help="a file or folder for the index; else it lies beside the data, or where these cannot "
        "be written to in the user's cache folder",
    )
    parser.add_argument(
        "--fields",
        metavar="NAME,...",
        type=lambda text: text.split(","),
        default=[],
        help="of .npz archives: the arrays that the program reads",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    kind = kind_for(args.paths)
    where: Where = True if args.place is None else args.place
    if args.fields and not kind.has_fields:
        raise ConfigError(f"--fields is for .npz archives, and these are {kind.data}: leave it out")
    file = kind.make(args.paths, where, args.fields)
    if not file.path:
        raise AccessError("the index cannot be written: name another place by --place PATH")
    try:
        file.check()
    except DataError:
        os.unlink(file.path)
        file = kind.make(args.paths, where, args.fields)
    say(*index_as_text(file))
    return 0
