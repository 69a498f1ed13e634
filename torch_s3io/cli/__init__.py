"""The command line: ``python -m torch_s3io COMMAND``, also installed as ``torch-s3io``.

A command is a module of this package with ``add_parser(subparsers)``, which ends in
``parser.set_defaults(run=run)``, and ``run(args) -> int``, the exit status. It is named in
``COMMANDS``. Errors of the package become one line on stderr and exit status 1 (verify prints them
as its findings, and goes on); wrong usage is exit status 2; an interrupt is 130, a reader of our
output that has seen enough 141, SIGTERM 143.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from .._version import __version__
from ..console import note, open_standard_streams, show_progress
from ..errors import Error
from ..processes.lifetime import cleaning_up_on_sigterm
from .parser import Parser
from .store_option import use_store

COMMANDS = ("doctor", "pack", "index", "info", "verify", "uploads", "bench")

_EPILOG = """\
examples:
  %(prog)s doctor /data                  what this machine offers, and what to change
  %(prog)s pack images/ --output packed  files as shards of records
  %(prog)s index shards/                 where the samples of tar archives are
  %(prog)s info packed                   what is in them
  %(prog)s verify packed                 whether they are as they were written
  %(prog)s uploads s3://bucket           what writers left there unfinished
  %(prog)s bench resnet50                epochs of an emulated training loop
  %(prog)s COMMAND --help                what a command does, its options, examples

exit status:
  0  done     1  failed: a line on stderr says why     2  wrong usage     130  Ctrl-C
"""


def make_parser() -> Parser:
    parser = Parser(
        prog=_program_name(),
        description="The tools of torch_s3io, which reads local files into PyTorch with O_DIRECT "
        "and io_uring.",
        epilog=_EPILOG,
    )
    version = f"torch_s3io {__version__}"
    parser.add_argument("--version", action="version", version=version)
    subparsers = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    for name in COMMANDS:
        importlib.import_module(f".{name}", __package__).add_parser(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    open_standard_streams()
    try:
        args = make_parser().parse_args(arguments)
        use_store(args)
        with cleaning_up_on_sigterm():
            return int(args.run(args))
    except Error as error:
        status, text = 1, str(error)
    except KeyboardInterrupt as interrupt:
        status, text = 130, "; ".join(filter(None, ["interrupted", str(interrupt)]))
    show_progress("")
    note(f"{_program_name()}: {text}")
    return status


def _program_name() -> str:
    started_as = os.path.basename(sys.argv[0])
    return "torch-s3io" if started_as == "torch-s3io" else "python -m torch_s3io"
