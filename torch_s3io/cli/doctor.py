"""``doctor``: what this machine offers for reading fast, and what to change."""

from __future__ import annotations

import argparse
import platform
from typing import Any

from .. import _C


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("doctor", help="what this machine offers, and what to change")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    reason = _C.uring_unavailable_reason()
    print(f"kernel: {platform.release()}")
    print(f"io_uring: {reason or 'works'}")
    return 1 if reason else 0
