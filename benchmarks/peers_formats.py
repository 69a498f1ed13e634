"""Contestants that have a format of their own, and write the records in it first."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from libraries import library
from peers_workload import (
    SHARD_BYTES,
    SHUFFLE_BUFFER,
    WORKERS,
    Contestant,
    Epochs,
    Preads,
    Workload,
)
from torch.utils.data import DataLoader


@contextlib.contextmanager
def _converted(folder: Path) -> Iterator[Path | None]:
    """A folder to write into, or None if it was written before."""
    done = folder / "done.json"
    if done.exists():
        yield None
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    yield folder
    done.write_text(json.dumps({"complete": True}))


def _files_in(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(path for path in folder.rglob("*") if path.is_file()))


def _records(workload: Workload) -> Iterator[bytes]:
    reader = Preads(workload)
    for number in range(workload.count):
        yield reader.batch([number]).numpy().tobytes()


def one_file(workload: Workload, folder: Path) -> Path:
    """All records in a file."""
    target = folder / f"one-file-{workload.name()}"
    with _converted(target) as new:
        if new is not None:
            with open(new / "records.bin", "wb") as out:
                out.writelines(_records(workload))
    return target / "records.bin"


def webdataset(workload: Workload, folder: Path) -> Contestant:
    """Tar shards, batched in workers; shuffled by shards and within a buffer."""
    import webdataset as wds

    target = folder / f"webdataset-{workload.name()}"
    per_shard = max(1, SHARD_BYTES // workload.record_bytes)
    with _converted(target) as new:
        if new is not None:
            _write_tars(workload, new, per_shard)
    shards = [str(path) for path in _files_in(target) if path.suffix == ".tar"]
    dataset = wds.WebDataset(shards, shardshuffle=100 if workload.shuffled else False)
    if workload.shuffled:
        dataset = dataset.shuffle(SHUFFLE_BUFFER)
    dataset = dataset.to_tuple("bin").map(lambda sample: np.frombuffer(sample[0], np.uint8))
    dataset = dataset.batched(
        workload.batch_size, collation_fn=lambda rows: torch.from_numpy(np.stack(rows))
    )
    loader = wds.WebLoader(
        dataset, batch_size=None, num_workers=min(WORKERS, len(shards)), persistent_workers=True
    )
    return Contestant(loader, _files_in(target))


def _write_tars(workload: Workload, folder: Path, per_shard: int) -> None:
    for number, data in enumerate(_records(workload)):
        mode = "w" if number % per_shard == 0 else "a"
        path = folder / f"{number // per_shard:06}.tar"
        if mode == "w":
            archive = tarfile.open(path, "w")  # noqa: SIM115
        info = tarfile.TarInfo(f"{number:09}.bin")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
        if (number + 1) % per_shard == 0 or number + 1 == workload.count:
            archive.close()


def litdata(workload: Workload, folder: Path) -> Contestant:
    """Its own chunks, by its own loader with workers."""
    import litdata as library
    from litdata.streaming.writer import BinaryWriter

    target = folder / f"litdata-{workload.name()}"
    with _converted(target) as new:
        if new is not None:
            writer = BinaryWriter(str(new), chunk_bytes=max(SHARD_BYTES, 2 * workload.record_bytes))
            for number, data in enumerate(_records(workload)):
                writer[number] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            writer.done()
            writer.merge()

    def epoch() -> Iterator[torch.Tensor]:  # its workers map chunks as long as they live
        dataset = library.StreamingDataset(str(target), shuffle=workload.shuffled, drop_last=False)
        yield from library.StreamingDataLoader(
            dataset, batch_size=workload.batch_size, num_workers=WORKERS
        )

    return Contestant(Epochs(epoch), _files_in(target))


def mosaicml_streaming(workload: Workload, folder: Path) -> Contestant:
    """MDS shards, by DataLoader with workers."""
    streaming = library("streaming")
    target = folder / f"mds-{workload.name()}"
    with _converted(target) as new:
        if new is not None:
            columns, limit = {"x": "bytes"}, max(SHARD_BYTES, 2 * workload.record_bytes)
            with streaming.MDSWriter(
                out=str(new / "mds"), columns=columns, size_limit=limit
            ) as out:
                for data in _records(workload):
                    out.write({"x": data})
    dataset = streaming.StreamingDataset(
        local=str(target / "mds"),
        batch_size=workload.batch_size,
        shuffle=workload.shuffled,
        num_canonical_nodes=1,
    )
    loader = DataLoader(
        dataset,
        batch_size=workload.batch_size,
        num_workers=WORKERS,
        persistent_workers=True,
        collate_fn=_stack_bytes,
    )
    return Contestant(loader, _files_in(target))


def _stack_bytes(samples: list[dict[str, bytes]]) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.frombuffer(row["x"], np.uint8) for row in samples]))
