"""One pass of a loop over the loader; DataLoader's other half."""

from __future__ import annotations

import time
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from ..datasets.planned import PlannedDataset
from ..errors import ConfigError, DataError
from ..order.progress import Counting, Pass
from ..processes.interrupts import uninterrupted
from ..torch_internals.loader_workers import iterator_read_here, persistent_iterator, shut_down

if TYPE_CHECKING:
    from .data_loader import DataLoader


class LoaderPass(Pass):
    """One pass over the loader: it says how long the loop waited, shows how far it is, and ends
    workers that an interrupt may have confused. Without workers the data set counts."""

    _bar: Any = None

    def __init__(self, loader: DataLoader) -> None:
        super().__init__(partial(loader._begin, weakref.ref(self)))
        self.finished = False
        self._was_interrupted = False
        self._was_asked = False
        self._loader = loader
        self._seen = time.perf_counter()
        if loader._shows_progress:
            self._bar = _progress_bar(loader)

    def begin(self) -> None:
        try:
            super().begin()
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
            if self._counts:  # last: an interrupt before it loses the batch
                self.count()
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
            batch = self._take()
            delivered = 1
            return batch
        except StopIteration:
            self._finish()
            raise
        except Exception:
            self._loader._note_failure(self)
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
        # An interrupt may have come before this pass knew the iterator that it began.
        is_own = self._loader._has_workers_of(self)
        begun = persistent_iterator(self._loader) if is_own else None
        batches = self._batches if begun is None else begun
        self._finish()
        shut_down(self._loader, batches)

    def count_on_hand_out(self) -> Counting:
        """For who takes batches ahead of the loop, and says what the loop received."""
        counting = pass_of(self._batches)
        return super().count_on_hand_out() if counting is None else counting.count_on_hand_out()

    def close(self) -> None:
        self._finish()

    def _finish(self) -> None:
        self.finished = True
        super().close()
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __del__(self) -> None:
        self._finish()


def pass_of(batches: Any) -> Pass | None:
    """What counts in the data set when torch's loader reads it in this process."""
    iterator = iterator_read_here(batches)
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
