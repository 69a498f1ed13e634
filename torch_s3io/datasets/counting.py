"""A data set in the main process: which epoch the next pass over it reads."""

from __future__ import annotations

import os
import sys
from abc import abstractmethod
from collections.abc import Iterator
from functools import partial
from typing import Any

from torch.utils.data import get_worker_info

from ..config import check_int
from ..errors import ConfigError
from ..order.epochs import EpochClock, Position
from ..order.progress import Pass, Progress
from ..processes.ranks import Ranks
from ..torch_internals.accelerate import find_skipping
from ..torch_internals.collation import collation_by
from ..torch_internals.worker_reads import Caller, find_caller
from ..warning import warn
from .batches import runs_transform
from .in_worker import InWorker
from .misuse import refuse_to_be_cut, refuse_to_be_stacked
from .peeking import random_numbers_kept
from .unbatching import samples_of


class CountingDataset(InWorker):
    """Epochs that are counted, set, held by a loop, or looked at."""

    _warned_of_look: bool
    _warned_of_samples: bool
    _warned_of_skipping: bool

    def _forget_progress(self) -> None:
        self._progress: Progress | None = None  # of the latest pass in this process
        self._epoch_of_look: int | None = None  # that somebody was told
        self._is_counted_elsewhere = False  # by a DataLoader, for its workers
        self._is_stacked = False  # by a DataLoader that should not
        self._gives_samples = False  # of its batches, to a DataLoader of transformers

    @abstractmethod
    def _read_first(self, position: Position, ranks: Ranks) -> Any:
        """The rank's first batch from ``position`` on, read by itself."""

    @abstractmethod
    def _compare_ranks(self, position: Position) -> None:
        """Raises where not all ranks are about to begin the same thing."""

    # ---- Epochs.

    @property
    def epoch(self) -> int:
        """The epoch that is being read; before its first batch, the one that comes next. In a
        worker, that of the batches it makes: for a ``transform``, for instance."""
        self._note_question(self._progress)
        return self._current_position().epoch

    def _current_position(self) -> Position:
        """Where the epoch began that is being read; before its first batch, the one that comes."""
        if get_worker_info() is None:
            return self._own_clock().position
        place = self._worker_place
        return self._own_passes().now().position if place is None else place.position

    def _next_epoch(self) -> int:
        return self._own_clock().next_position().epoch

    def set_epoch(self, epoch: int) -> None:
        """The next iteration reads this epoch, at most 2**48 - 1 (less for a Mix whose epochs are
        long). Reaches workers that are alive already.

        Needed before each epoch under torch's DataLoader with workers, which cannot count; without
        workers, and in torch_s3io.DataLoader, epochs count up by themselves. After
        ``load_state_dict``, setting the epoch that was loaded keeps the place within it.

        With torch.distributed every rank must call it, with the same value.
        """
        refuse_to_be_cut(sys._getframe(1))
        epoch = check_int("epoch", epoch, 0)
        if epoch > self._order.last_epoch:
            raise ConfigError(f"epoch must be at most {self._order.last_epoch}, not {epoch}")
        if get_worker_info() is not None:
            self._set_epoch_in_worker(epoch)
            return
        self._own_clock().set_epoch(epoch)
        self._are_sent()

    def _are_sent(self) -> None:
        """This rank and all others, to where the clock stands."""
        self._forget_progress()
        self._compare_ranks(self._own_clock().position)

    def epochs(self, stop: int) -> Iterator[int]:
        """The epochs up to ``stop - 1``, for a training loop::

            for epoch in dataset.epochs(10):
                for batch in dataset:
                    step(batch)

        Each epoch is set before the loop gets it. The first one is 0, that of the latest
        ``set_epoch``, or that of a loaded state, which goes on where it was taken. Batches that
        were looked at before do not matter. All passes that begin in the loop's body read its
        epoch: a look at a batch moves nothing, and a pass may be broken off. Once the body has
        ended, the next epoch comes. Where the body sends the data set elsewhere and begins no
        pass there (``load_state_dict``, to go back), the loop goes on there.

        With torch.distributed every rank must go through it.

        Args:
            stop: At most 2**48, as for ``set_epoch``.
        """
        stop = check_int("stop", stop, 0)
        if stop > self._order.last_epoch + 1:
            raise ConfigError(f"stop must be at most {self._order.last_epoch + 1}, not {stop}")
        return self._epochs(stop)

    def _epochs(self, stop: int) -> Iterator[int]:
        if get_worker_info() is not None:
            for epoch in range(self._current_position().epoch, stop):
                if epoch != self._current_position().epoch:
                    self._set_epoch_in_worker(epoch)
                yield epoch
            return
        clock = self._own_clock()
        if clock.place.epoch >= stop > 0:
            warn(
                f"epochs({stop}): nothing is left to read, because the next epoch is "
                f"{clock.place.epoch}, and {stop - 1} would be the last one. set_epoch(0) begins "
                "anew, a larger number goes on"
            )
        while clock.place.epoch < stop:
            with clock.holding() as epoch:
                self._are_sent()
                yield epoch

    def _own_clock(self) -> EpochClock:
        """A process that was forked for something else has an epoch of its own."""
        if self._clock.owner != os.getpid() and get_worker_info() is None:
            self._clock = EpochClock(self._clock.position)
        return self._clock

    # ---- Iteration.

    def __iter__(self) -> Iterator[Any]:
        caller = sys._getframe(1)
        makes_batches = self._options.batch_size is not None
        collation = collation_by(caller) if makes_batches else "none"
        self._is_stacked = collation == "stacks"
        if self._is_stacked:
            return Pass(refuse_to_be_stacked)
        if get_worker_info() is not None:
            is_inner = runs_transform()
            asks = Caller("other") if is_inner else find_caller(self, caller, ours=InWorker)
            batches = Pass(self._pass_in_worker(asks))
        else:
            batches = Pass(self._begin)
        self._gives_samples = collation == "makes batches"
        if self._gives_samples:
            self._warn_of_samples()
            return samples_of(batches)
        return batches

    def _warn_of_samples(self) -> None:
        info = get_worker_info()
        if self._warned_of_samples or (info is not None and info.id != 0):
            return
        self._warned_of_samples = True
        warn(
            f"transformers makes the batches (per_device_train_batch_size), of samples: "
            f"batch_size={self._options.batch_size} of this data set does not matter. "
            "batch_size=None says so, and calls a transform with samples"
        )

    def _begin(self) -> tuple[Iterator[Any], Progress | None]:
        if get_worker_info() is not None:  # which was forked since: it reads for itself
            return self._pass_in_worker(Caller("other"))()
        progress = self._begin_epoch()
        return self._read(progress.position, self._ranks(), 0, 1), progress

    def _begin_epoch(self, for_workers: bool = False) -> Progress:
        """In the main process: the next pass begins, here or in workers for which it counts."""
        self._begin_where_skipped()
        clock = self._own_clock()
        last = self._order.last_epoch
        if clock.next_position().epoch > last:
            raise ConfigError(f"epoch {last} is the last one there is: set_epoch() goes back")
        self._compare_ranks(clock.next_position())
        position = clock.begin(for_workers)
        self._warn_of_look(position)
        self._is_counted_elsewhere = for_workers
        plan = self._plan(position, self._ranks())
        self._progress = Progress(position, plan, on_end=partial(clock.end, position))
        return self._progress

    def _begin_where_skipped(self) -> None:
        """Where accelerate takes and drops batches of an epoch, it does so from its start."""
        skipping = find_skipping(sys._getframe())
        if skipping is None:
            return
        clock = self._own_clock()
        if skipping.epoch is None and not clock.was_moved and self._order.differs_by_epoch:
            self._warn_of_skipping()
        place = clock.next_position()
        epoch = place.epoch if skipping.epoch is None else skipping.epoch
        if place != (epoch, 0):
            clock.load(Position(epoch, 0), is_over=False)

    def _warn_of_skipping(self) -> None:
        if self._warned_of_skipping:
            return
        self._warned_of_skipping = True
        warn(
            "accelerate's skip_first_batches() does not say which epoch it skips batches of, and "
            "nobody else did: this reads epoch 0. Call set_epoch(epoch) before; or do not skip, "
            "but load_state_dict() what state_dict() said, which reads nothing twice"
        )

    def peek(self) -> Any:
        """The batch that the next pass begins with, for a look; nothing changes: no epoch begins,
        the state and all random numbers stay as they are, and what was read does not count.

        Read in this process, by itself. With several ranks each has its own, and asks no other.

        Raises:
            ConfigError: The next pass has no batch.
        """
        if get_worker_info() is None:
            position = self._own_clock().next_position()
        else:
            position = self._current_position()
        ranks = self._ranks()
        if self._plan(position, ranks).num_steps == 0:
            raise ConfigError(
                f"peek(): what is left of epoch {position.epoch} makes no batch; set_epoch() goes "
                "to another one"
            )
        with random_numbers_kept():
            return self._read_first(position, ranks)

    def _note_question(self, progress: Progress | None) -> None:
        """Somebody is told the epoch of this pass."""
        if progress is not None and progress.was_a_look:
            self._epoch_of_look = progress.position.epoch

    def _warn_of_look(self, position: Position) -> None:
        told, self._epoch_of_look = self._epoch_of_look, None
        if told is None or position != (told + 1, 0) or self._warned_of_look:
            return
        self._warned_of_look = True
        warn(
            f"this pass reads epoch {position.epoch}, but `epoch` was asked for and said {told}, "
            "of a pass that was given up after its first batches. If that was a look, a loop over "
            "range(loader.epoch, n) is an epoch behind, and reads fewer when it is resumed: write "
            "`for epoch in loader.epochs(n)`, or look with loader.peek(), which begins no epoch "
            "(both are methods of data sets, too)"
        )
