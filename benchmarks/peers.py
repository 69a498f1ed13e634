"""What a user would pick instead of RecordDataset: each on the same records, set up as its own
documentation recommends, with a thread pool around preads where it is only a framework.

A contestant is a function of a Workload that returns an object to iterate, epoch after epoch: every
record once, in batches, uint8 [B, record_bytes]. It may write the records in its own format first.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import os
import random
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

import torch_s3io as s3io

THREADS = 8
WORKERS = 2
SHARD_BYTES = 64 << 20  # of formats that have shards
SHUFFLE_BUFFER = 1000  # samples, of those that shuffle within a buffer


class Left(Exception):
    """This contestant cannot take part. The text says why."""


@dataclass(frozen=True)
class Workload:
    """Files of nothing but records, and how they are wanted."""

    paths: tuple[Path, ...]
    record_bytes: int
    records_per_file: int
    batch_size: int
    shuffled: bool
    warm: bool

    @property
    def count(self) -> int:
        return len(self.paths) * self.records_per_file

    def name(self) -> str:
        return f"{len(self.paths)}x{self.records_per_file}x{self.record_bytes}"


@dataclass(frozen=True)
class Contestant:
    """Batches to iterate, and the files that they are read from."""

    batches: Iterable[torch.Tensor]
    files: tuple[Path, ...]


class Preads:
    """Records by number, by pread. Files are opened in the process that reads."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self._fds: dict[tuple[int, int], int] = {}

    def _fd(self, file: int) -> int:
        key = (os.getpid(), file)
        if key not in self._fds:
            self._fds[key] = os.open(self.workload.paths[file], os.O_RDONLY)
        return self._fds[key]

    def read_into(self, number: int, view: memoryview) -> None:
        file, record = divmod(number, self.workload.records_per_file)
        offset = record * self.workload.record_bytes
        while view:
            done = os.preadv(self._fd(file), [view], offset)
            view, offset = view[done:], offset + done

    def batch(self, numbers: Iterable[int]) -> torch.Tensor:
        """Records of these numbers, in fresh memory; neighbours of one file in one call."""
        numbers = list(numbers)
        size, per_file = self.workload.record_bytes, self.workload.records_per_file
        batch = torch.empty((len(numbers), size), dtype=torch.uint8)
        view = memoryview(batch.numpy()).cast("B")
        begin = 0
        for end in range(1, len(numbers) + 1):
            follows = (
                end < len(numbers)
                and numbers[end] == numbers[end - 1] + 1
                and numbers[end] % per_file
            )
            if not follows:
                self.read_into(numbers[begin], view[begin * size : end * size])
                begin = end
        return batch

    def __getstate__(self) -> dict[str, Any]:
        return {"workload": self.workload, "_fds": {}}


class PreadDataset(Dataset[torch.Tensor]):
    """Map-style; a batch in one call, as DataLoader offers it (``__getitems__``)."""

    def __init__(self, workload: Workload) -> None:
        self.preads = Preads(workload)

    def __len__(self) -> int:
        return self.preads.workload.count

    def __getitems__(self, numbers: list[int]) -> torch.Tensor:
        return self.preads.batch(numbers)

    def __getitem__(self, number: int) -> torch.Tensor:
        return self.preads.batch([number])[0]


class MemmapDataset(Dataset[torch.Tensor]):
    """Map-style over numpy.memmap; a batch is gathered in one call."""

    def __init__(self, workload: Workload) -> None:
        shape = (workload.records_per_file, workload.record_bytes)
        self.count, self.per_file = workload.count, workload.records_per_file
        self.arrays = [np.memmap(path, np.uint8, "r", 0, shape) for path in workload.paths]

    def __len__(self) -> int:
        return self.count

    def __getitems__(self, numbers: list[int]) -> torch.Tensor:
        rows = [self.arrays[n // self.per_file][n % self.per_file] for n in numbers]
        return torch.from_numpy(np.stack(rows))


def _same(batch: Any) -> Any:
    return batch


def _torch_loader(
    dataset: Dataset[torch.Tensor], workload: Workload, workers: int, persistent: bool = True
) -> Any:
    options: dict[str, Any] = {"persistent_workers": persistent} if workers else {}
    return DataLoader(
        dataset,
        batch_size=workload.batch_size,
        shuffle=workload.shuffled,
        num_workers=workers,
        collate_fn=_same,
        **options,
    )


def ours(workload: Workload, folder: Path, workers: int = 0) -> Contestant:
    order: dict[str, Any] = {"shuffle": True, "seed": 1} if workload.shuffled else {}
    dataset = s3io.RecordDataset(
        [str(path) for path in workload.paths],
        dtype=np.uint8,
        shape=(workload.record_bytes,),
        batch_size=workload.batch_size,
        direct="auto" if workload.warm else "require",
        **order,
    )
    return Contestant(s3io.DataLoader(dataset, num_workers=workers), workload.paths)


def preads(workload: Workload, folder: Path, workers: int) -> Contestant:
    return Contestant(_torch_loader(PreadDataset(workload), workload, workers), workload.paths)


class Epochs:
    """Anew from a function for every epoch."""

    def __init__(self, make: Callable[[], Iterator[torch.Tensor]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[torch.Tensor]:
        return self._make()


def memmap(workload: Workload, folder: Path, workers: int) -> Contestant:
    """Mapped anew for every epoch: what is mapped cannot be dropped from the page cache."""

    def epoch() -> Iterator[torch.Tensor]:
        yield from _torch_loader(MemmapDataset(workload), workload, workers, persistent=False)

    return Contestant(Epochs(epoch), workload.paths)


def _numbers_of_batches(workload: Workload) -> BatchSampler:
    every = range(workload.count)
    sampler = RandomSampler(every) if workload.shuffled else SequentialSampler(every)
    return BatchSampler(sampler, workload.batch_size, drop_last=False)


def spdl(workload: Workload, folder: Path) -> Contestant:
    """A pipeline of batches of numbers, read by threads."""
    from spdl.pipeline import PipelineBuilder

    reader = Preads(workload)

    def epoch() -> Iterator[torch.Tensor]:
        builder = PipelineBuilder().add_source(_numbers_of_batches(workload))
        builder = builder.pipe(reader.batch, concurrency=THREADS, output_order="input")
        pipeline = builder.add_sink(THREADS).build(num_threads=THREADS)
        with pipeline.auto_stop():
            yield from pipeline

    return Contestant(Epochs(epoch), workload.paths)


def torchdata_nodes(workload: Workload, folder: Path) -> Contestant:
    """Samplers, threads that read whole batches, and a loader."""
    import torchdata.nodes as nodes

    reader = Preads(workload)
    source = nodes.SamplerWrapper(_numbers_of_batches(workload))
    mapped = nodes.ParallelMapper(source, reader.batch, num_workers=THREADS, method="thread")
    return Contestant(nodes.Loader(nodes.Prefetcher(mapped, THREADS)), workload.paths)


def grain(workload: Workload, folder: Path) -> Contestant:
    """A source by number, shuffled and batched before its reading threads."""
    import grain as library

    reader = Preads(workload)

    class Source:
        def __len__(self) -> int:
            return workload.count

        def __getitem__(self, number: int) -> np.ndarray[Any, Any]:
            data = np.empty(workload.record_bytes, np.uint8)
            reader.read_into(number, memoryview(data))
            return data

    def epoch(seed: int = 0) -> Iterator[torch.Tensor]:
        dataset = library.MapDataset.source(Source())
        if workload.shuffled:
            dataset = dataset.shuffle(seed=random.randrange(1 << 30))
        # Whole batches are prefetched: as many as there are threads bounds the memory.
        options = library.ReadOptions(num_threads=THREADS, prefetch_buffer_size=THREADS)
        return map(torch.from_numpy, dataset.batch(workload.batch_size).to_iter_dataset(options))

    return Contestant(Epochs(epoch), workload.paths)


def tf_data(workload: Workload, folder: Path) -> Contestant:
    """FixedLengthRecordDataset; it shuffles files, and records within a buffer."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    names = [str(path) for path in workload.paths]
    if workload.shuffled:
        files = tf.data.Dataset.from_tensor_slices(names).shuffle(len(names))
        dataset = files.interleave(
            lambda name: tf.data.FixedLengthRecordDataset(name, workload.record_bytes),
            num_parallel_calls=tf.data.AUTOTUNE,
        ).shuffle(min(SHUFFLE_BUFFER, workload.count))
    else:
        dataset = tf.data.FixedLengthRecordDataset(names, workload.record_bytes)
    dataset = dataset.batch(workload.batch_size, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.map(
        lambda batch: tf.io.decode_raw(batch, tf.uint8), num_parallel_calls=tf.data.AUTOTUNE
    ).prefetch(tf.data.AUTOTUNE)
    return Contestant(
        Epochs(lambda: (torch.from_dlpack(tf.experimental.dlpack.to_dlpack(b)) for b in dataset)),
        workload.paths,
    )


def s3dlio(workload: Workload, folder: Path) -> Contestant:
    """Whole files through its own loader: Rust reads ahead, DataLoader collates."""
    if workload.records_per_file != 1:
        raise Left("it loads whole files, so a record must be a file")
    from s3dlio.torch import ObjectStoreIterableDataset

    links = (folder / f"s3dlio-{workload.name()}").absolute()  # it reads all of a folder
    shutil.rmtree(links, ignore_errors=True)
    links.mkdir(parents=True)
    for path in workload.paths:
        os.link(path, links / path.name)
    dataset = ObjectStoreIterableDataset.from_prefix(
        f"file://{links}/",
        prefetch=2 * THREADS,
        num_workers=THREADS,
        shuffle=workload.shuffled,
        seed=1,
    )
    return Contestant(DataLoader(dataset, batch_size=workload.batch_size), workload.paths)


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
    import streaming

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


OURS = "RecordDataset"
# Name, the package whose version is shown, and the function.
CONTESTANTS: dict[str, tuple[str, Callable[[Workload, Path], Contestant]]] = {
    OURS: ("torch-s3io", ours),
    f"{OURS}, {WORKERS} workers": ("torch-s3io", lambda w, f: ours(w, f, WORKERS)),
    "Dataset of preads": ("torch", lambda w, f: preads(w, f, 0)),
    f"Dataset of preads, {WORKERS} workers": ("torch", lambda w, f: preads(w, f, WORKERS)),
    "numpy.memmap": ("torch", lambda w, f: memmap(w, f, 0)),
    f"numpy.memmap, {WORKERS} workers": ("torch", lambda w, f: memmap(w, f, WORKERS)),
    "torchdata.nodes": ("torchdata", torchdata_nodes),
    "SPDL": ("spdl", spdl),
    "Grain": ("grain", grain),
    "tf.data": ("tensorflow-cpu", tf_data),
    "s3dlio": ("s3dlio", s3dlio),
    "WebDataset": ("webdataset", webdataset),
    "LitData": ("litdata", litdata),
    "MosaicML Streaming": ("mosaicml-streaming", mosaicml_streaming),
}


def version_of(package: str) -> str:
    """As installed; raises Left where it is not."""
    if package == "torch-s3io":
        return s3io.__version__
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise Left(f"{package} is not installed: pip install {package}") from None
