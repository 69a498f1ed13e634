"""Loaders of the samples of images.py, shuffled, in batches of bytes; each in its usual way.

A rival is a function of the images and of its number of workers or threads. It returns a function
that reads an epoch and says how many samples, and how many bytes of images, came.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from images import BATCH, Images
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler

SHUFFLE_BUFFER = 1000  # samples, of those that shuffle within a buffer

Read = tuple[int, int]  # samples, bytes of images
Epoch = Callable[[], Read]


@dataclass(frozen=True)
class Rival:
    paths: Callable[[Images], list[Path]]
    make: Callable[[Images, int], Epoch]
    unit: str  # what is counted
    counts: tuple[int, ...]  # of them, to be tried
    package: str = ""


def _lengths(batches: Iterable[list[bytes]]) -> Read:
    samples = total = 0
    for batch in batches:
        samples += len(batch)
        total += sum(map(len, batch))
    return samples, total


def _same(batch: Any) -> Any:
    return batch


def _read_file(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()


def _read_files(paths: list[str]) -> list[bytes]:
    return [_read_file(path) for path in paths]


def _ours(make: Callable[[Images], Any], field: str) -> Callable[[Images, int], Epoch]:
    def epoch_of(images: Images, workers: int) -> Epoch:
        import torch_s3io as s3io

        dataset = make(images)
        loader = s3io.DataLoader(dataset, num_workers=workers, persistent_workers=workers > 0)

        def epoch() -> Read:
            samples = total = 0
            for batch in loader:
                samples += len(batch[field])
                total += int(batch[field].lengths.sum())
            return samples, total

        return epoch

    return epoch_of


def _our_files(images: Images) -> Any:
    import torch_s3io as s3io

    pattern = str(images.files()[0].parents[1] / "**/*.jpg")
    return s3io.SampleDataset.from_files(pattern, labels="folder", batch_size=BATCH, shuffle=True)


def _our_tars(images: Images, shuffle: bool | Literal["block"] = True) -> Any:
    import torch_s3io as s3io

    paths, fields = list(map(str, images.tars())), ("jpg", "cls")
    return s3io.SampleDataset.from_tar(paths, fields=fields, batch_size=BATCH, shuffle=shuffle)


def _our_shards(images: Images, shuffle: bool | Literal["block"] = True) -> Any:
    import torch_s3io as s3io

    return s3io.SampleDataset(images.shards()[0].parent, batch_size=BATCH, shuffle=shuffle)


class _FileDataset(Dataset[bytes]):
    """Map-style, as people write it."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> bytes:
        return _read_file(self.paths[number])


def _plain(images: Images, workers: int) -> Epoch:
    dataset = _FileDataset(list(map(str, images.files())))
    loader: Any = DataLoader(
        dataset, BATCH, shuffle=True, num_workers=workers, collate_fn=_same,
        persistent_workers=workers > 0,
    )  # fmt: skip
    return lambda: _lengths(loader)


def _threads(images: Images, threads: int) -> Epoch:
    paths = list(map(str, images.files()))

    def lengths(part: list[str]) -> Read:
        return len(part), sum(len(_read_file(path)) for path in part)

    def epoch() -> Read:
        order = random.sample(paths, len(paths))
        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(lengths, (order[first::threads] for first in range(threads))))
        return sum(part[0] for part in parts), sum(part[1] for part in parts)

    return epoch


class _PathBatches:
    """Shuffled batches of paths, anew for each epoch."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = list(map(str, paths))

    def __iter__(self) -> Iterator[list[str]]:
        sampler = BatchSampler(RandomSampler(range(len(self._paths))), BATCH, drop_last=False)
        return ([self._paths[number] for number in numbers] for numbers in sampler)


def _torchdata_nodes(images: Images, threads: int) -> Epoch:
    import torchdata.nodes as nodes

    source = nodes.IterableWrapper(_PathBatches(images.files()))
    mapped = nodes.ParallelMapper(source, _read_files, num_workers=threads, method="thread")
    loader: Any = nodes.Loader(nodes.Prefetcher(mapped, threads))
    return lambda: _lengths(loader)


def _spdl(images: Images, threads: int) -> Epoch:
    from spdl.pipeline import PipelineBuilder

    batches = _PathBatches(images.files())

    def epoch() -> Read:
        builder = PipelineBuilder().add_source(iter(batches))
        builder = builder.pipe(_read_files, concurrency=threads)
        pipeline = builder.add_sink(threads).build(num_threads=threads)
        with pipeline.auto_stop():
            return _lengths(pipeline)

    return epoch


def _webdataset(images: Images, workers: int) -> Epoch:
    import webdataset as wds

    shards = list(map(str, images.tars()))
    dataset = wds.WebDataset(shards, shardshuffle=100).shuffle(SHUFFLE_BUFFER)
    dataset = dataset.to_tuple("jpg", "cls").batched(BATCH, collation_fn=_same)
    loader = wds.WebLoader(
        dataset, batch_size=None, num_workers=workers, persistent_workers=workers > 0
    )
    return lambda: _lengths([image for image, _ in batch] for batch in loader)


def _dali(kind: str, images: Images, threads: int) -> Epoch:
    from nvidia.dali import fn, pipeline_def

    options = {
        "random_shuffle": True,
        "initial_fill": SHUFFLE_BUFFER,
        "name": "reader",
        "pad_last_batch": True,
    }

    def images_and_labels() -> Any:
        if kind == "files":
            image, label = fn.readers.file(files=list(map(str, images.files())), **options)
        else:
            paths, indexes = list(map(str, images.tars())), list(map(str, images.dali_indexes()))
            image, label = fn.readers.webdataset(
                paths=paths, index_paths=indexes, ext=["jpg", "cls"], **options
            )
        return image, label

    pipe = pipeline_def(
        batch_size=BATCH, num_threads=threads, device_id=None, prefetch_queue_depth=4
    )
    pipeline = pipe(images_and_labels)()
    pipeline.build()
    count = pipeline.epoch_size("reader")

    def epoch() -> Read:
        samples = total = 0
        while samples < count:  # the last batch is filled up with repetitions
            batch = pipeline.run()[0]
            take = min(BATCH, count - samples)
            samples += take
            total += sum(shape[0] for shape in batch.shape()[:take])
        return samples, total

    return epoch


def _tf_data(images: Images, threads: int) -> Epoch:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    names = list(map(str, images.tfrecords()))
    files = tf.data.Dataset.from_tensor_slices(names).shuffle(len(names))
    dataset = files.interleave(
        tf.data.TFRecordDataset,
        cycle_length=threads,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=False,
    )
    dataset = dataset.shuffle(SHUFFLE_BUFFER).batch(BATCH).prefetch(tf.data.AUTOTUNE)

    def epoch() -> Read:
        samples = total = 0
        for batch in dataset:
            samples += batch.shape[0]
            total += int(tf.reduce_sum(tf.strings.length(batch)))
        return samples, total

    return epoch


_OUR_COUNTS = (0, 2)
_WORKERS, _MANY_THREADS = (0, 1, 2, 4, 8), (2, 4, 8, 16)

OURS = {
    "from_files": Rival(Images.files, _ours(_our_files, "data"), "workers", _OUR_COUNTS),
    "from_tar": Rival(Images.tars, _ours(_our_tars, "jpg"), "workers", _OUR_COUNTS),
    "own format": Rival(Images.shards, _ours(_our_shards, "jpg"), "workers", _OUR_COUNTS),
    "from_tar, shuffle='block'": Rival(
        Images.tars, _ours(partial(_our_tars, shuffle="block"), "jpg"), "workers", (0,)
    ),
    "own format, shuffle='block'": Rival(
        Images.shards, _ours(partial(_our_shards, shuffle="block"), "jpg"), "workers", (0,)
    ),
}

RIVALS = {
    "webdataset, tars": Rival(Images.tars, _webdataset, "workers", _WORKERS, "webdataset"),
    "DALI, tars": Rival(
        Images.tars, lambda *args: _dali("tars", *args), "threads", (2, 8), "nvidia.dali"
    ),
    "tf.data, TFRecord": Rival(
        Images.tfrecords, _tf_data, "files at once", (2, 8, 16), "tensorflow"
    ),
    "DALI, files": Rival(
        Images.files, lambda *args: _dali("files", *args), "threads", (2, 8), "nvidia.dali"
    ),
    "SPDL, files": Rival(Images.files, _spdl, "threads", _MANY_THREADS, "spdl"),
    "torchdata.nodes, files": Rival(
        Images.files, _torchdata_nodes, "threads", _MANY_THREADS, "torchdata"
    ),
    "plain Dataset, files": Rival(Images.files, _plain, "workers", _WORKERS),
    "plain threads, files, no batches": Rival(Images.files, _threads, "threads", _MANY_THREADS),
}


def set_up() -> None:
    torch.set_num_threads(1)
