"""``doctor``: what this machine offers for reading fast, what is missing, and how to get it."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..console import say_text, show_step
from ..doctor import examine
from .store_option import add_store_option

STATUS_COSTS = 3

_DESCRIPTION = """\
Tries what fast reading needs (io_uring, O_DIRECT, huge pages, locked memory, page-locking for
CUDA), and says of everything that is missing what it costs and which command changes it. With
PATH it also reads from there for about a minute, and finds the best block size and depth.
"""

_EPILOG = """\
exit status:
  0  nothing costs performance        3  something costs performance
  1  could not be run                 2  wrong usage     130  Ctrl-C

examples:
  %(prog)s                   this machine; takes seconds
  %(prog)s /data/train       and the storage of a folder; takes a minute
  %(prog)s x.bin --quick     some seconds of reading one file, rough figures
  %(prog)s s3://bucket/train a server of objects: what it heeds, and its rate; an object of a
                             byte is written there, and removed
  %(prog)s /data --json | python -m json.tool
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "doctor",
        help="what this machine offers for reading fast, and what to change",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument(
        "path",
        nargs="?",
        metavar="PATH",
        help="a file to read, or a folder: a file of 1 GiB or more in it is read, or else a "
        "temporary one is made; or s3://bucket/prefix",
    )
    parser.add_argument(
        "--quick", action="store_true", help="read for some seconds only; the figures are rough"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    add_store_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    examination = examine(args.path, quick=args.quick, report=show_step)
    show_step("")
    as_json = json.dumps(examination.as_json(), indent=1) if args.json else ""
    say_text(f"{as_json or examination.as_text()}\n")
    return STATUS_COSTS if examination.costs else 0
