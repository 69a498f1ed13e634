"""What the language models share: their options, and Python's sources as text."""

from __future__ import annotations

import argparse
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
from common import all_default, argument_parser, option, positive

NOT_TEXT = {"site-packages", "dist-packages", "test", "tests", "__pycache__"}


def parse_arguments(
    description: str | None, *, data: str, batch_size: int, window: int, hidden: int
) -> argparse.Namespace:
    parser = argument_parser(description, data=data, batch_size=batch_size)
    option(parser, "--steps", type=positive, default=240, help="batches to train on")
    option(parser, "--report-every", type=positive, default=30, help="steps per row of the table")
    option(
        parser, "--window", type=positive, default=window, help="bytes that are predicted in a row"
    )
    option(parser, "--hidden", type=positive, default=hidden, help="width of the model")
    parser.add_argument(
        "--source",
        type=Path,
        default=Path(sysconfig.get_path("stdlib")),
        metavar="DIR",
        help="folder of Python files to learn from (default: the standard library)",
    )
    args = parser.parse_args()
    names = ("batch_size", "seed", "steps", "window", "hidden", "gigabytes", "source")
    args.is_default = all_default(parser, args, *names)
    return args


def python_files(folder: Path) -> list[Path]:
    """Those below the folder that somebody wrote for use."""
    return sorted(
        file for file in folder.rglob("*.py") if not NOT_TEXT & {*file.relative_to(folder).parts}
    )


def unigram_entropy(counts: Any) -> float:
    """The entropy of a byte in nats, from how often each value comes: int64 [256]."""
    frequency = counts[counts > 0] / counts.sum()
    return float(-(frequency * np.log(frequency)).sum())
