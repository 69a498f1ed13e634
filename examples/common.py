"""What the examples share: options, measuring the loop, printing tables."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

import torch_s3io as s3io


def positive(text: str) -> int:
    value = int(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number")
    return value


def not_negative(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is negative")
    return value


def positive_float(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{value} is not a positive number")
    return value


def argument_parser(
    docstring: str | None, *, data: str, batch_size: int
) -> argparse.ArgumentParser:
    """A parser with the options that every example has, and its docstring as the description."""
    parser = argparse.ArgumentParser(
        description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data_help = "where the record files are; those of another size are replaced"
    option(parser, "--data", type=Path, default=Path(data), metavar="DIR", help=data_help)
    option(parser, "--batch-size", type=positive, default=batch_size, help="records per batch")
    option(parser, "--workers", type=not_negative, default=0, help="DataLoader processes")
    option(parser, "--threads", type=positive, default=1, help="of PyTorch on the CPU")
    option(parser, "--seed", type=int, default=0, help="of the model's initial weights")
    option(
        parser,
        "--direct",
        choices=("auto", "require", "off"),
        default="auto",
        help="read with O_DIRECT where it pays off, always, or never",
    )
    option(
        parser,
        "--engine",
        choices=("auto", "uring", "threads"),
        default="auto",
        help="read by io_uring, by threads, or by what the machine allows",
    )
    parser.add_argument(
        "--gigabytes",
        type=positive_float,
        metavar="X",
        help="size of the data, by repeating them (default: small)",
    )
    return parser


def option(parser: argparse.ArgumentParser, name: str, **settings: Any) -> None:
    """Adds an option whose help ends with its default; the metavar of a number is N."""
    if "choices" not in settings:
        settings.setdefault("metavar", "N")
    settings["help"] += " (default: %(default)s)"
    parser.add_argument(name, **settings)


def all_default(parser: argparse.ArgumentParser, args: argparse.Namespace, *names: str) -> bool:
    return all(getattr(args, name) == parser.get_default(name) for name in names)


class Meter:
    """Counts what a training loop receives from a loader, and how long it waits for it."""

    columns = ("samples/s", "throughput", "waiting")

    def __init__(self, dataset: s3io.RecordDataset | s3io.TokenDataset, record_bytes: int) -> None:
        self.dataset = dataset
        self.record_bytes = record_bytes
        self._workers = 0
        self._start()

    def _start(self) -> None:
        self.records = 0
        self._next_s = 0.0
        self._began_s = time.perf_counter()
        self._waited_before_s = self.dataset.stats()["consumer_wait_s"]

    def watch(self, loader: DataLoader[Any]) -> Iterator[Any]:
        """The loader's batches; the clock runs from here to `lap`."""
        if not self.records:
            self._start()
        self._workers = loader.num_workers
        asked_s = time.perf_counter()
        for batch in loader:
            self._next_s += time.perf_counter() - asked_s
            first = next(iter(batch.values())) if isinstance(batch, dict) else batch
            self.records += len(first)
            yield batch
            asked_s = time.perf_counter()

    def lap(self) -> list[str]:
        """Samples/s, bytes/s and the share of time spent waiting, since the last lap.

        With workers the waiting is the time inside `next(loader)`: what the data set counts is
        how long the workers waited for the device.
        """
        elapsed_s = time.perf_counter() - self._began_s
        waited_s = self.dataset.stats()["consumer_wait_s"] - self._waited_before_s
        if self._workers:
            waited_s = self._next_s
        samples_per_s = self.records / elapsed_s
        self._start()
        return [
            f"{samples_per_s:,.0f}",
            f"{bytes_text(samples_per_s * self.record_bytes)}/s",
            f"{waited_s / elapsed_s:.1%}",
        ]

    def how_it_was_read(self) -> str:
        """One line: the engine, what it read in which way, and what was copied on the way."""
        stats = self.dataset.stats()
        read = {kind: stats[f"{kind}_bytes"] for kind in ("direct", "cached", "buffered")}
        shares = ", ".join(f"{bytes_text(count)} {kind}" for kind, count in read.items())
        copied, converted = stats["copied_bytes"], stats["converted_bytes"]
        in_place = max(0.0, 1 - copied / stats["batch_bytes"])
        return (
            f"read by the {stats['engine']} engine into {stats['page_size']} pages: {shares}; "
            f"{in_place:.1%} delivered without a copy "
            f"({bytes_text(copied)} copied, of which {bytes_text(converted)} to convert it)"
        )


class Table:
    """Prints a table row by row, as the values come in."""

    def __init__(self, *titles: str) -> None:
        self.widths = [max(10, len(title)) for title in titles]
        self.row(*titles)

    def row(self, *cells: str) -> None:
        columns = zip(cells, self.widths, strict=True)
        print("  ".join(cell.rjust(width) for cell, width in columns), flush=True)


def bytes_text(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"


def pick_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
