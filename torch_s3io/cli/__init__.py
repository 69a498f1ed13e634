"""The command line: ``python -m torch_s3io COMMAND``, also installed as ``torch-s3io``.

A command is a module of this package with ``add_parser(subparsers)``, which ends in
``parser.set_defaults(run=run)``, and ``run(args) -> int``, the exit status. It is named in
``COMMANDS``. Errors of the package become one line on stderr and exit status 1 (verify prints them
as its findings, and goes on); wrong usage is
exit status 2; an interrupt is 130, SIGTERM 143.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from .._version import __version__
from ..errors import Error
from ..processes.lifetime import cleaning_up_on_sigterm

COMMANDS = ("doctor", "bench", "pack", "verify", "info")

_EPILOG = """\
examples:
  %(prog)s doctor /data                 what this machine offers, and what to change
  %(prog)s bench resnet50               epochs of an emulated training loop
  %(prog)s pack images/ -o packed       files as shards of records; verify, info: what is in them
  %(prog)s COMMAND --help               what a command does, with examples
"""


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_program_name(),
        description="Reads local files into PyTorch with O_DIRECT and io_uring: its tools.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"torch_s3io {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(f".{name}", __package__).add_parser(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    parser = make_parser()
    args = parser.parse_args(arguments)
    try:
        with cleaning_up_on_sigterm():
            status: int = args.run(args)
        sys.stdout.flush()
        return status
    except Error as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _program_name() -> str:
    started_as = os.path.basename(sys.argv[0])
    return "torch-s3io" if started_as == "torch-s3io" else "python -m torch_s3io"
