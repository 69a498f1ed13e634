"""One pass of a loop over the loader; DataLoader's other half, which knows its private names."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..datasets.planned import PlannedDataset
from ..errors import ConfigError, DataError
from ..order.progress import Counting, Pass, Progress
from ..processes.interrupts import uninterrupted

if TYPE_CHECKING:
    from .data_loader import DataLoader


class LoaderPass:
    """One pass over the loader: counts what it delivers, and how long it waited."""

    _bar: Any = None

    def __init__(self, loader: DataLoader) -> None:
        self.finished = False
        self._was_interrupted = False
        self._was_asked = False
        self.progress: Progress | None = None  # of workers; without them the data set counts
        self._counts = True
        self._loader = loader
        self._batches: Iterator[Any] | None = None
        self._seen = time.perf_counter()
        if loader._shows_progress:
            self._bar = _progress_bar(loader)

    def __iter__(self) -> LoaderPass:
        return self

    def begin(self) -> None:
        try:
            self._batches = self._loader._begin(self)
        except Exception:
            raise
        except BaseException:
            self._end_after_interrupt()
            raise

    def __next__(self) -> Any:
        if self._was_interrupted:
            raise DataError(
                "an interrupt ended this pass while it waited for its workers: begin another one, "
                "which goes on with the next epoch, or where a state that is loaded first was taken"
            )
        if self.finished:
            raise StopIteration
        try:
            batch = self._receive()
            if self._bar is not None:
                self._bar.update()
            if self.progress is not None:
                self.progress.take()
                if self._counts:
                    self.progress.count()
            return batch
        except Exception:
            raise
        except BaseException:
            self._end_after_interrupt()
            raise

    def _receive(self) -> Any:
        asked = time.perf_counter()
        delivered = 0
        try:
            if not self._was_asked:
                self._was_asked = True
                self._loader._before_first_batch()
            if self._batches is None:
                self.begin()
            assert self._batches is not None
            batch = next(self._batches)
            delivered = 1
            return batch
        except StopIteration:
            if self._counts:
                self.end()
            self._finish()
            raise
        except Exception:
            self._loader._note_failure(self)
            if self.progress is not None:
                self.progress.fail()
            raise
        finally:
            now = time.perf_counter()
            self._loader._count(now - asked, now - self._seen, delivered)
            self._seen = now

    def _end_after_interrupt(self) -> None:
        """Ends the workers: a KeyboardInterrupt can come anywhere in torch's and Python's queues,
        which may then have lost a message, or wait for one for ever.

        What the loop received so far is not in doubt.
        """
        if self._loader.num_workers == 0 or self._was_interrupted:
            return
        self._was_interrupted = True
        uninterrupted(self.end_workers)

    def end_workers(self) -> None:
        """There are no more batches."""
        batches = self._batches
        if batches is None and self._loader._has_workers_of(self):
            batches = self._loader._iterator
        self._finish()
        self._loader._dismiss(batches)

    def count_on_hand_out(self) -> Counting:
        """For who takes batches ahead of the loop, and says what the loop received."""
        self._counts = False
        counting = pass_of(self._batches)
        return self if counting is None else counting.count_on_hand_out()

    def count(self) -> None:
        if self.progress is not None:
            self.progress.count()

    def end(self) -> None:
        if self.progress is not None:
            self.progress.end()

    def _finish(self) -> None:
        self.finished = True
        self._batches = None
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __del__(self) -> None:
        self._finish()


def pass_of(batches: Any) -> Pass | None:
    """What counts in the data set when torch's loader reads it in this process."""
    fetcher = getattr(batches, "_dataset_fetcher", None)
    iterator = getattr(fetcher, "dataset_iter", None)
    return iterator if isinstance(iterator, Pass) else None


def _progress_bar(loader: DataLoader) -> Any:
    """For a whole epoch; one that was resumed begins where it was left."""
    try:
        from tqdm import tqdm
    except ImportError:
        raise ConfigError("progress=True needs tqdm: pip install tqdm") from None
    try:
        total: int | None = len(loader)
    except TypeError:
        total = None
    done = 0
    if total is not None and isinstance(loader.dataset, PlannedDataset):
        done = max(0, total - loader.dataset._steps_to_come())
    return tqdm(total=total, initial=done, unit="batch", dynamic_ncols=True)
