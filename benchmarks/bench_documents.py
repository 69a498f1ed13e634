"""Windows over shuffled documents of tokens, against other ways of reading the same files.

For each length of documents a .bin and an .idx as Megatron writes them are read, as int64 windows
of 2049 tokens every 2048, 32 a batch, by

* TokenDataset: documents shuffled, windows mixed;
* RecordDataset.from_tokens: windows of the files as they lie, in random order, without documents;
* a map-style Dataset in the way of Megatron's GPTDataset: documents shuffled, index arrays made
  beforehand (which is not timed), numpy.memmap and a concatenation for every window;
* a loop in the way of nanoGPT: numpy.memmap, windows at random places, with repetitions.

Contestants run in turns. The last token of every row is read in the main process. Cold: the page
cache is emptied of the data before each run; warm: the data is brought there. Data sets are made
before the clock starts.
"""

from __future__ import annotations

import argparse
import struct
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

import torch_s3io as s3io

OURS, FIXED = "TokenDataset", "RecordDataset.from_tokens"
MEGATRON, NANOGPT = "Dataset as Megatron's", "loop as nanoGPT's"
WINDOW, BATCH = 2049, 32
MEAN_TOKENS = (500, 16 * WINDOW)
COLUMNS = ["contestant", "windows/s", "of from_tokens", "CPU s/GB"]
_TOKEN_BYTES = 2


def write(folder: Path, mean: int, total_bytes: int) -> Path:
    """Once: what is there is used again. Lengths are log-normal."""
    path = folder / f"documents-{mean}-{total_bytes}.bin"
    index = path.with_suffix(".idx")
    if path.exists() and index.exists():
        return path
    random = np.random.default_rng(0)
    count = max(1, total_bytes // (mean * _TOKEN_BYTES))
    lengths = np.maximum(1, random.lognormal(np.log(mean) - 0.5, 1.0, count)).astype("<i4")
    starts = (np.cumsum(lengths, dtype="<i8") - lengths) * _TOKEN_BYTES
    total = int(lengths.sum(dtype=np.int64))
    chunk = random.integers(0, 50_000, 1 << 20).astype("<u2")
    with open(path, "wb") as file:
        for begin in range(0, total, len(chunk)):
            file.write(chunk[: min(len(chunk), total - begin)].data)
    head = struct.pack("<9sQBQQ", b"MMIDIDX\0\0", 1, 8, count, count + 1)
    documents = np.arange(count + 1, dtype="<i8")
    index.write_bytes(head + lengths.tobytes() + starts.tobytes() + documents.tobytes())
    return path


class MegatronDataset(Dataset[torch.Tensor]):
    """As GPTDataset reads: an order of documents, and of each window its first document and place
    there; a window is a concatenation of slices of a memory map."""

    def __init__(self, path: Path) -> None:
        data = np.fromfile(path.with_suffix(".idx"), np.uint8)
        count = int(data[18:26].view("<u8")[0])
        lengths = data[34 : 34 + 4 * count].copy().view("<i4")
        starts = data[34 + 4 * count : 34 + 12 * count].copy().view("<i8")
        order = np.random.default_rng(0).permutation(count)
        self.lengths, self.starts = lengths[order], starts[order]
        ends = np.cumsum(self.lengths, dtype=np.int64)
        firsts = np.arange(0, int(ends[-1]) - WINDOW + 1, WINDOW - 1)
        self.document = np.searchsorted(ends, firsts, "right")
        self.offset = firsts - (ends - self.lengths)[self.document]
        self.order = np.random.default_rng(1).permutation(len(firsts))
        self.tokens = np.memmap(path, "<u2", "r")

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> torch.Tensor:
        window = self.order[index]
        document, offset = int(self.document[window]), int(self.offset[window])
        parts, left = [], WINDOW
        while left:
            start = int(self.starts[document]) // _TOKEN_BYTES + offset
            part = min(left, int(self.lengths[document]) - offset)
            parts.append(self.tokens[start : start + part])
            left -= part
            document, offset = document + 1, 0
        return torch.from_numpy(np.concatenate(parts, dtype=np.int64))


def nanogpt(path: Path, windows: int) -> Iterator[torch.Tensor]:
    """As get_batch of train.py: the map is made anew for every batch."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(windows // BATCH):
        data = np.memmap(path, np.uint16, "r")
        places = torch.randint(len(data) - WINDOW, (BATCH,), generator=generator)
        yield torch.stack(
            [torch.from_numpy(data[place : place + WINDOW].astype(np.int64)) for place in places]
        )


def contestants(
    path: Path, workers: int, warm: bool, seconds: float
) -> dict[str, Callable[[], common.Sample]]:
    options: dict[str, Any] = {"batch_size": BATCH, "shuffle": True, "window": WINDOW}

    def run(make: Callable[[], Any]) -> common.Sample:
        for file in (path, path.with_suffix(".idx")):
            (common.bring_into_cache if warm else common.drop_from_cache)(file)
        loader = make()
        cpu_before, start, count = common.cpu_seconds(), time.perf_counter(), 0
        for batch in loader:
            assert int(batch[:, -1].min()) >= 0
            count += len(batch)
            if time.perf_counter() - start > seconds:
                break
        elapsed_s = time.perf_counter() - start
        del loader, batch
        gigabytes = count * WINDOW * _TOKEN_BYTES / common.GB
        cpu_s = common.cpu_seconds() - cpu_before
        return {"windows_per_s": count / elapsed_s, "cpu_s_per_gb": cpu_s / gigabytes}

    def fixed() -> Any:
        options_of = {**options, "stride": WINDOW - 1, "as_dtype": torch.int64}
        return s3io.RecordDataset.from_tokens(path, **options_of)

    makes: dict[str, Callable[[], Any]] = {
        OURS: lambda: s3io.DataLoader(s3io.TokenDataset(path, **options), num_workers=workers),
        FIXED: lambda: s3io.DataLoader(fixed(), num_workers=workers),
        MEGATRON: lambda: DataLoader(MegatronDataset(path), BATCH, num_workers=workers),
    }
    if workers == 0:
        makes[NANOGPT] = lambda: nanogpt(path, 1 << 30)
    return {name: partial(run, make) for name, make in makes.items()}


def bench(report: common.Report, args: argparse.Namespace, warm: bool) -> None:
    title = f"Documents of tokens, {'warm' if warm else 'cold'} page cache"
    if not report.wants(title):
        return
    rows, all_samples = [], {}
    for mean in MEAN_TOKENS:
        path = write(args.data, mean, int(args.size_gib * common.GIB))
        for workers in (0, 2):
            name = f"documents of {mean:,} tokens, {workers} workers"
            runs = common.in_rounds(
                contestants(path, workers, warm, args.seconds), args.rounds, name
            )
            all_samples[name] = runs
            rows.append([f"{name}:", "", "", ""])
            for contestant, samples in runs.items():
                ratio = common.spread(
                    common.ratios(samples, runs[FIXED], "windows_per_s"), unit="x"
                )
                rows.append(
                    [
                        contestant,
                        common.spread(common.values(samples, "windows_per_s"), ",.0f"),
                        "" if contestant == FIXED else ratio,
                        common.spread(common.values(samples, "cpu_s_per_gb")),
                    ]
                )
    note = (
        f"Windows of {WINDOW} tokens (uint16) as int64, {BATCH} a batch; {args.seconds:g} s of an "
        "epoch, or all of it, from the start of the workers on; GB of tokens as they are stored."
    )
    report.table(title, note, COLUMNS, rows, all_samples)


def main() -> None:
    args = common.parse(common.argument_parser(__doc__))
    args.data.mkdir(parents=True, exist_ok=True)
    report = common.Report(args, common.machine(args.data))
    bench(report, args, warm=False)
    bench(report, args, warm=True)
    report.save()


if __name__ == "__main__":
    main()
