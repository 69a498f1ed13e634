"""torch's DataLoader with the defaults that our data sets want, progress and statistics."""

from __future__ import annotations

import copy
import os
import weakref
from collections.abc import Iterator
from typing import Any

import torch
import torch.utils.data
from torch.utils.data import Dataset, get_worker_info

from ..config import check_bool, check_int
from ..datasets.misuse import refuse_what_the_data_set_does
from ..datasets.planned import PlannedDataset
from ..datasets.record_dataset import RecordDataset
from ..datasets.stored_dataset import StoredDataset
from ..datasets.zipped import Zip
from ..errors import ConfigError
from ..keywords import keywords_of, refuse_unknown
from ..order.progress import Progress
from ..order.state import State
from ..processes.ranks import Ranks, refuse_other_ranks
from ..torch_internals.loader_workers import (
    are_alive,
    persistent_iterator,
    shut_down,
    without_workers,
)
from ..wording import short
from .lightning import follow
from .loader_pass import LoaderPass, pass_of

_MOST_PREFETCHED = 8
_OF_THE_DATA_SET = ("batch_size", "shuffle", "drop_last", "sampler", "batch_sampler")


class DataLoader(torch.utils.data.DataLoader[Any]):
    """``torch.utils.data.DataLoader`` with other defaults, and ``stats()``.

    ::

        loader = s3io.DataLoader(dataset, num_workers=2, progress=True)
        for batch in loader: ...
        print(loader.stats()["wait_share"])  # near 0: the loader keeps up; near 1: it does not

    Args:
        dataset: A RecordDataset (also a Mix), a Zip, or any other data set.
        num_workers: Worker processes; 0 reads in a thread of this one.
        batch_size: None, the default: the data set yields batches.
        persistent_workers: Default: True where there are workers.
        prefetch_factor: Batches ready per worker. Default: what leaves the data set's pool room to
            read into, at most 8.
        pin_memory: Default: True where CUDA is there. Batches from workers are then page-locked
            where they lie, without a copy; without workers torch copies them.
        progress: Show a progress bar (tqdm) for every epoch.
        **options: As for torch's class.

    A worker that was killed is an error of that pass; the next one starts new workers.

    Several iterators at a time: all but the first get workers of their own. (torch's class would
    take the workers away from the first when they are persistent.)

    ``epochs()`` is for training loops; ``state_dict()`` says where the loop is, and
    ``load_state_dict()`` goes on there, under any number of workers and ranks::

        for epoch in loader.epochs(10):
            for batch in loader:
                step(batch)
                if it_is_time:
                    torch.save({"model": model.state_dict(), "loader": loader.state_dict()}, path)

    Outside of such a loop epochs count up: every iteration whose first batch was taken is followed
    by the next epoch, also after a ``break``. ``peek()`` gives a batch and begins nothing.
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
        known = keywords_of(torch.utils.data.DataLoader)
        refuse_unknown("DataLoader", options, [*known, "progress"], keywords_of(RecordDataset))
        check_bool("progress", progress)
        num_workers = check_int("num_workers", num_workers, 0)
        if prefetch_factor is not None:
            prefetch_factor = check_int("prefetch_factor", prefetch_factor, 1)
        if isinstance(dataset, (str, bytes, os.PathLike)):
            raise ConfigError(
                f"dataset must be a data set, not the path {short(dataset)}: make one of it, as in "
                'RecordDataset("train/*.bin", dtype=..., shape=...)'
            )
        if isinstance(dataset, PlannedDataset):
            given = {"batch_size": batch_size, **options}
            refuse_what_the_data_set_does({name: given.get(name) for name in _OF_THE_DATA_SET})
            if num_workers > 0 and dataset._options.shard_by_worker is False:
                raise ConfigError(
                    "shard_by_worker=False in the data set that the loader reads: each record "
                    "would come once per worker; leave it None there"
                )
        self._shows_progress = progress
        self._pass: weakref.ref[LoaderPass] | None = None  # that has the persistent workers
        self._workers_failed = False  # the persistent ones, in their latest pass
        self._worker_ranks: Ranks | None = None  # of the persistent workers
        self._progress: Progress | None = None  # of the latest pass
        self._goes_on = False  # with the epoch at hand, in the next pass
        self._batches = 0
        self._wait_s = 0.0
        self._wall_s = 0.0
        workers: dict[str, Any] = {}
        if num_workers > 0:
            workers = {
                "persistent_workers": True if persistent_workers is None else persistent_workers,
                "prefetch_factor": prefetch_factor or _prefetched(dataset, num_workers),
            }
        elif persistent_workers or prefetch_factor is not None:
            raise ConfigError(
                "persistent_workers and prefetch_factor need num_workers > 0: raise that, or "
                "leave them "
                "out"
            )
        pin = torch.cuda.is_available() if pin_memory is None else pin_memory
        super().__init__(
            dataset,
            batch_size=batch_size,
            num_workers=num_workers,
            pin_memory=pin,
            **workers,
            **options,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dataset!r}, num_workers={self.num_workers})"

    def __getstate__(self) -> dict[str, Any]:
        """For copies: without the workers and the loop of this one."""
        nothing = dict.fromkeys(("_pass", "_worker_ranks", "_progress"))
        return {**without_workers(self.__dict__), **nothing, "_workers_failed": False}

    def __iter__(self) -> Any:
        pass_ = LoaderPass(self)
        # An epoch of ours begins with its first batch, and so do the workers that read it.
        if not isinstance(self.dataset, PlannedDataset) or self.num_workers == 0:
            pass_.begin()
        return pass_

    def _begin(self, pass_: weakref.ref[LoaderPass]) -> tuple[Iterator[Any], Progress | None]:
        """torch's iterator over the next epoch."""
        if not isinstance(self.dataset, PlannedDataset) or self.num_workers == 0:
            batches = self._start(pass_)
            counting = pass_of(batches)
            if counting is not None:
                counting.on_begin = self._follow
            return batches, None
        # Workers cannot count epochs, so it is counted here, before they begin.
        self._progress = progress = self.dataset._begin_epoch(for_workers=True)
        try:
            return self._start(pass_), progress
        except BaseException:
            self.dataset._own_clock().cancel()
            raise

    def _before_first_batch(self) -> None:
        if isinstance(self.dataset, PlannedDataset):
            follow(self)

    def _follow(self, progress: Progress) -> None:
        self._progress = progress

    def _start(self, pass_: weakref.ref[LoaderPass]) -> Iterator[Any]:
        current = self._pass() if self._pass is not None else None
        if current is not None and not current.finished:
            if not self._workers_failed:
                return super(DataLoader, copy.copy(self)).__iter__()  # starts other workers
            current.end_workers()  # of which some may never begin it
        self._bury_workers()
        self._refuse_other_ranks()
        self._pass = pass_
        if not self._tell_workers():
            shut_down(self, persistent_iterator(self))
        try:
            return super().__iter__()
        except Exception:
            self._workers_failed = True
            raise

    def _tell_workers(self) -> bool:
        """The persistent ones, where the pass that comes begins; False where that cannot be."""
        workers = persistent_iterator(self)
        if workers is None or not isinstance(self.dataset, PlannedDataset):
            return True
        return self.dataset._own_clock().tell_next_pass(workers)

    def _refuse_other_ranks(self) -> None:
        """Persistent workers keep the rank that they were started with."""
        if not isinstance(self.dataset, PlannedDataset) or self.num_workers == 0:
            return
        if persistent_iterator(self) is None:
            self._worker_ranks = self.dataset._ranks()
        elif self._worker_ranks is not None:
            refuse_other_ranks(self._worker_ranks, self.dataset._ranks())

    def _bury_workers(self) -> None:
        """Persistent workers of which one was killed, or failed: this pass starts others."""
        workers = persistent_iterator(self)
        if self._workers_failed or not are_alive(workers):
            shut_down(self, workers)
        self._workers_failed = False

    def _note_failure(self, pass_: LoaderPass) -> None:
        """An error came of this pass. Who knows which of its workers have begun it at all?"""
        self._workers_failed = self._workers_failed or self._has_workers_of(pass_)

    def _has_workers_of(self, pass_: LoaderPass) -> bool:
        """Whether the persistent workers, if there are any, are this pass's."""
        return self._pass is not None and self._pass() is pass_

    # ---- Where the loop is.

    @property
    def epoch(self) -> int:
        """The epoch that is being read; before its first batch, the one that comes next."""
        dataset = self._planned("epoch")
        progress = self._current()
        dataset._note_question(progress)
        return dataset._next_epoch() if progress is None else progress.position.epoch

    def state_dict(self) -> State:
        """Where the loop is: after the batch that it received last; see RecordDataset.state_dict.

        Other loops over the same data set, also those of other loaders, change nothing about it.
        Equal on all ranks after equally many batches. With a DevicePrefetcher around the loader,
        the batch that the prefetcher handed out last counts.

        Raises:
            ConfigError: Not a data set of torch_s3io; or ``in_order=False``, with which nobody
                knows which batches are still to come.
            DataError: An error lost a batch of this epoch.
        """
        dataset = self._planned("state_dict()")
        if not getattr(self, "in_order", True):
            raise ConfigError(
                "state_dict() needs in_order=True: batches that overtake others leave no place to "
                "go on from"
            )
        if get_worker_info() is not None:
            return dataset.state_dict()
        return dataset._state_of(self._current())

    def _current(self) -> Progress | None:
        """Of the latest pass, unless the data set was sent elsewhere since, by set_epoch() or
        load_state_dict()."""
        was_sent = self._planned("state_dict()")._progress is None
        return None if was_sent else self._progress

    def load_state_dict(self, state: State, *, strict: bool | None = None) -> None:
        """The next iteration goes on where the state was taken; see RecordDataset.load_state_dict.

        A state of another number of workers or ranks is fine, and so is one of the data set. It can
        be loaded with ``in_order=False``, too, which itself has none to give.
        """
        self._planned("load_state_dict()").load_state_dict(state, strict=strict)

    def set_epoch(self, epoch: int) -> None:
        """The next iteration reads this epoch; for loops that count themselves."""
        self._planned("set_epoch()").set_epoch(epoch)

    def epochs(self, stop: int) -> Iterator[int]:
        """The epochs up to ``stop - 1``, for a training loop; see RecordDataset.epochs."""
        return self._planned("epochs()").epochs(stop)

    def peek(self) -> Any:
        """The batch that the next pass begins with, for a look; see RecordDataset.peek. Read in
        this process, whatever ``num_workers`` is, and not page-locked."""
        return self.collate_fn(self._planned("peek()").peek())

    def _planned(self, wanted: str) -> PlannedDataset:
        if isinstance(self.dataset, PlannedDataset):
            return self.dataset
        raise ConfigError(
            f"{wanted} needs a data set of torch_s3io in the DataLoader, not "
            f"{type(self.dataset).__name__}; a data set that wraps one keeps its state itself"
        )

    def stats(self) -> dict[str, Any]:
        """What was read, as ``dataset.stats()`` says (all workers added up), and how it went.

        ``loop_batches``: received by the loop. ``loop_s``: time from the start of each epoch to its
        end (or to the last batch so far). ``loop_wait_s``: of that, inside ``next()``.
        ``wait_share``: their ratio: the share of time that the loop waited for data. ``gb_per_s``:
        ``batch_bytes``, 10^9 per second of ``loop_s``, where the data set counts them: one that
        wraps ours has no ``stats()``, and what ours counted is in its own.
        """
        read = getattr(self.dataset, "stats", None)
        stats: dict[str, Any] = dict(read()) if callable(read) else {}
        wall = max(self._wall_s, 1e-9)
        stats["loop_batches"] = self._batches
        stats["loop_s"] = self._wall_s
        stats["loop_wait_s"] = self._wait_s
        stats["wait_share"] = self._wait_s / wall
        if "batch_bytes" in stats:
            stats["gb_per_s"] = stats["batch_bytes"] / 1e9 / wall
        return stats

    def _count(self, wait_s: float, wall_s: float, batches: int) -> None:
        self._wait_s += wait_s
        self._wall_s += wall_s
        self._batches += batches


def _prefetched(dataset: Dataset[Any], num_workers: int) -> int:
    """Batches in flight per worker that leave half of its pool to read into."""
    if not isinstance(dataset, (StoredDataset, Zip)):
        return 2
    capacity = dataset.buffers_per_worker(num_workers)
    return max(2, min(_MOST_PREFETCHED, capacity // 2 - 1))
