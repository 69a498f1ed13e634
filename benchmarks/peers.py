"""What a user would pick instead of RecordDataset: each on the same records, set up as its own
documentation recommends, with a thread pool around preads where it is only a framework.

A contestant is a function of a Workload that returns an object to iterate, epoch after epoch: every
record once, in batches, uint8 [B, record_bytes]. It may write the records in its own format first.
"""

from __future__ import annotations

import importlib.metadata
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers_formats import litdata, mosaicml_streaming, one_file, webdataset
from peers_workload import (
    SHUFFLE_BUFFER,
    THREADS,
    WORKERS,
    Contestant,
    Epochs,
    Left,
    Preads,
    Workload,
)
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler
from torch.utils.dlpack import from_dlpack

import torch_s3io as s3io


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
    """Map-style over numpy.memmap of one file, indexed by whole batches: its fastest way."""

    def __init__(self, path: Path, workload: Workload) -> None:
        shape = (workload.count, workload.record_bytes)
        self.array = np.memmap(path, np.uint8, "r", 0, shape)

    def __len__(self) -> int:
        return len(self.array)

    def __getitems__(self, numbers: list[int]) -> torch.Tensor:
        return torch.from_numpy(self.array[numbers])


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


def _our_dataset(workload: Workload, **options: Any) -> s3io.RecordDataset:
    if workload.shuffled:
        options |= {"shuffle": True, "seed": 1}
    dataset = s3io.RecordDataset(
        [str(path) for path in workload.paths],
        dtype=np.uint8,
        shape=(workload.record_bytes,),
        batch_size=workload.batch_size,
        **options,
    )
    # Nothing is read for the next epoch before it begins, while others are measured.
    return dataset._with(reads_on=False)


class OurFirstEpochs:
    """A data set made anew for every epoch: one that comes again to a set that fits in memory
    expects it in the page cache, from which the benchmark drops it."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(s3io.DataLoader(_our_dataset(self._workload)))


def ours(workload: Workload, folder: Path, workers: int = 0) -> Contestant:
    if workers == 0 and not workload.warm:
        return Contestant(OurFirstEpochs(workload), workload.paths)
    dataset = _our_dataset(workload, direct="auto" if workload.warm else "require")
    return Contestant(s3io.DataLoader(dataset, num_workers=workers), workload.paths)


def preads(workload: Workload, folder: Path, workers: int) -> Contestant:
    return Contestant(_torch_loader(PreadDataset(workload), workload, workers), workload.paths)


def memmap(workload: Workload, folder: Path, workers: int) -> Contestant:
    """Mapped anew for every epoch: what is mapped cannot be dropped from the page cache."""
    path = one_file(workload, folder)

    def epoch() -> Iterator[torch.Tensor]:
        dataset = MemmapDataset(path, workload)
        yield from _torch_loader(dataset, workload, workers, persistent=False)

    return Contestant(Epochs(epoch), (path,))


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
            record = np.empty(workload.record_bytes, np.uint8)
            reader.read_into(number, record.data)
            return record

    def epoch() -> Iterator[torch.Tensor]:
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
        Epochs(lambda: (from_dlpack(tf.experimental.dlpack.to_dlpack(b)) for b in dataset)),
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
