"""What yields the batches of a benchmark, and what it says of itself."""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from ..datasets.record_dataset import RecordDataset
from ..loading.data_loader import DataLoader
from ..store.file_store import FileStore
from .config import BenchConfig
from .data import names_of

Batch = torch.Tensor | list[torch.Tensor]


class Source:
    """Batches, epoch after epoch."""

    def __init__(self, config: BenchConfig) -> None:
        files = config.loader.reader == "files"
        self._dataset: Any = FilesDataset(config) if files else record_dataset(config)
        workers = config.loader.workers
        self._loader = DataLoader(
            self._dataset,
            num_workers=workers,
            # Counts are shared by fork, and forked workers have imported everything.
            multiprocessing_context="fork" if workers else None,
        )

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._loader)

    def stats(self) -> dict[str, Any]:
        """Counts so far of what was read, and how."""
        stats: dict[str, Any] = dict(self._dataset.stats())
        return stats

    def copied_bytes(self) -> int:
        """Bytes that were copied in memory so far, between the read and the loop."""
        stats = self.stats()
        copied: int = stats.get("copied_bytes", 0) + stats.get("held_out_bytes", 0)
        return copied

    def handed_over_bytes(self) -> int:
        """Bytes that came from workers without a copy."""
        handed: int = self.stats().get("received_bytes", 0)
        return handed


def record_dataset(config: BenchConfig) -> RecordDataset:
    loader, storage, data = config.loader, config.storage, config.data
    dataset = RecordDataset(
        names_of(data),
        dtype=np.uint8,
        shape=(data.record_bytes,),
        batch_size=loader.batch_size,
        shuffle=loader.shuffle,
        seed=loader.seed,
        block_records=loader.block_records,
        window_blocks=loader.window_blocks,
        rank=0,
        world_size=1,
        drop_last=loader.drop_last,
        direct=storage.direct_io,
        engine=storage.engine,
        pool=storage.pool,
        depth=storage.depth,
        transform=torch.clone if loader.copy_batches else None,
    )
    # What is dropped from the page cache before each epoch shall not be brought into it: that takes
    # several times a direct read, and a set that does not fit in memory is read without it.
    return dataset._with(
        reads_on=not config.sets_cache_each_time, keeps_cached=config.page_cache != "cold"
    )


class FilesDataset(IterableDataset[list[torch.Tensor]]):
    """Whole files, some of them at the same time, in batches; workers take batches in turn."""

    def __init__(self, config: BenchConfig) -> None:
        self._paths = names_of(config.data)
        self._loader = config.loader
        self._store = FileStore(config.file_system_config(), engine=config.storage.engine)
        self._epoch = -1

    def _batches(self) -> list[list[str]]:
        paths = list(self._paths)
        if self._loader.shuffle:
            random.Random(f"{self._loader.seed} {self._epoch}").shuffle(paths)
        size = self._loader.batch_size
        batches = [paths[first : first + size] for first in range(0, len(paths), size)]
        if self._loader.drop_last and len(batches[-1]) < size:
            batches.pop()
        info = get_worker_info()
        return batches if info is None else batches[info.id :: info.num_workers]

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        self._epoch += 1  # in every worker alike
        batches = self._batches()
        wanted = itertools.chain.from_iterable(batches)
        width = self._loader.concurrent_files
        with ThreadPoolExecutor(width) as threads:
            running: deque[Future[torch.Tensor]] = deque(
                threads.submit(self._get, path) for path in itertools.islice(wanted, width)
            )
            for names in batches:
                batch = []
                for _ in names:
                    batch.append(running.popleft().result())
                    running.extend(
                        threads.submit(self._get, path) for path in itertools.islice(wanted, 1)
                    )
                yield batch
                del batch

    def _get(self, path: str) -> torch.Tensor:
        data = self._store.get(path)
        return data.clone() if self._loader.copy_batches else data

    def stats(self) -> dict[str, Any]:
        return self._store.stats()
