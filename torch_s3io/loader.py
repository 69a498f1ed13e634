"""torch's DataLoader with the defaults that our data sets want, progress and statistics."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator
from typing import Any

import torch
import torch.utils.data
from torch.utils.data import Dataset

from .config import check_bool
from .dataset import RecordDataset
from .errors import ConfigError

_MOST_PREFETCHED = 8


class DataLoader(torch.utils.data.DataLoader[Any]):
    """``torch.utils.data.DataLoader`` with other defaults, and ``stats()``.

    ::

        loader = s3io.DataLoader(dataset, num_workers=2, progress=True)
        for batch in loader: ...
        print(loader.stats()["wait_share"])  # near 0: the loader keeps up; near 1: it does not

    Args:
        dataset: A RecordDataset, or any other data set.
        num_workers: Worker processes; 0 reads in a thread of this one.
        batch_size: None, the default: the data set yields batches.
        persistent_workers: Default: True where there are workers.
        prefetch_factor: Batches ready per worker. Default: what leaves the data set's pool room to
            read into, at most 8.
        pin_memory: Default: True where CUDA is there. Batches from workers are then page-locked
            where they lie, without a copy; without workers torch copies them.
        progress: Show a progress bar (tqdm) for every epoch.
        **options: As for torch's class.

    Several iterators at a time: all but the first get workers of their own. (torch's class would
    take the workers away from the first when they are persistent.)
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        *,
        num_workers: int = 0,
        batch_size: int | None = None,
        persistent_workers: bool | None = None,
        prefetch_factor: int | None = None,
        pin_memory: bool | None = None,
        progress: bool = False,
        **options: Any,
    ) -> None:
        check_bool("progress", progress)
        if isinstance(dataset, RecordDataset) and batch_size is not None:
            raise ConfigError(
                f"batch_size={batch_size} in the DataLoader: a RecordDataset makes the batches "
                "itself; set batch_size there"
            )
        self._progress = progress
        self._epoch: weakref.ref[_Epoch] | None = None  # that has the persistent workers
        self._batches = 0
        self._wait_s = 0.0
        self._wall_s = 0.0
        workers: dict[str, Any] = {}
        if isinstance(num_workers, int) and num_workers > 0:
            workers = {
                "persistent_workers": True if persistent_workers is None else persistent_workers,
                "prefetch_factor": prefetch_factor or _prefetched(dataset, num_workers),
            }
        elif persistent_workers or prefetch_factor is not None:
            raise ConfigError("persistent_workers and prefetch_factor need num_workers > 0")
        pin = torch.cuda.is_available() if pin_memory is None else pin_memory
        super().__init__(
            dataset,
            batch_size=batch_size,
            num_workers=num_workers,
            pin_memory=pin,
            **workers,
            **options,
        )

    def __iter__(self) -> Any:
        current = self._epoch() if self._epoch is not None else None
        if current is not None and not current.finished:
            return _Epoch(self, self._get_iterator())
        epoch = _Epoch(self, super().__iter__())
        self._epoch = weakref.ref(epoch)
        return epoch

    def stats(self) -> dict[str, Any]:
        """What was read, as ``dataset.stats()`` says (all workers added up), and how it went.

        ``loop_batches``: received by the loop. ``loop_s``: time from the start of each epoch to its
        end (or to the last batch so far). ``loop_wait_s``: of that, inside ``next()``.
        ``wait_share``: their ratio: the share of time that the loop waited for data. ``gb_per_s``:
        bytes of records delivered, 10^9 per second of ``loop_s``.
        """
        read = getattr(self.dataset, "stats", None)
        stats: dict[str, Any] = dict(read()) if callable(read) else {}
        wall = max(self._wall_s, 1e-9)
        stats["loop_batches"] = self._batches
        stats["loop_s"] = self._wall_s
        stats["loop_wait_s"] = self._wait_s
        stats["wait_share"] = self._wait_s / wall
        stats["gb_per_s"] = stats.get("batch_bytes", 0) / 1e9 / wall
        return stats

    def _count(self, wait_s: float, wall_s: float, batches: int) -> None:
        self._wait_s += wait_s
        self._wall_s += wall_s
        self._batches += batches


class _Epoch:
    """One pass over the loader: counts what it delivers, and how long it waited."""

    def __init__(self, loader: DataLoader, batches: Iterator[Any]) -> None:
        self.finished = False
        self._loader = loader
        self._batches: Iterator[Any] | None = batches
        self._seen = time.perf_counter()
        self._bar = _progress_bar(loader) if loader._progress else None

    def __iter__(self) -> _Epoch:
        return self

    def __next__(self) -> Any:
        if self._batches is None:
            raise StopIteration
        asked = time.perf_counter()
        delivered = 0
        try:
            batch = next(self._batches)
            delivered = 1
        except StopIteration:
            self._finish()
            raise
        finally:
            now = time.perf_counter()
            self._loader._count(now - asked, now - self._seen, delivered)
            self._seen = now
        if self._bar is not None:
            self._bar.update()
        return batch

    def _finish(self) -> None:
        self.finished = True
        self._batches = None
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __del__(self) -> None:
        self._finish()


def _progress_bar(loader: DataLoader) -> Any:
    try:
        from tqdm import tqdm  # type: ignore[import-untyped]
    except ImportError:
        raise ConfigError("progress=True needs tqdm: pip install tqdm") from None
    try:
        total: int | None = len(loader)
    except TypeError:
        total = None
    return tqdm(total=total, unit="batch", dynamic_ncols=True)


def _prefetched(dataset: Dataset[Any], num_workers: int) -> int:
    """Batches in flight per worker that leave half of its pool to read into."""
    if not isinstance(dataset, RecordDataset):
        return 2
    capacity = dataset.buffers_per_worker(num_workers)
    return max(2, min(_MOST_PREFETCHED, capacity // 2 - 1))
