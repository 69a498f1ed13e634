"""Lightning's loop, told by who takes a batch.

Lightning saves the states of loaders in all its checkpoints, and loads them where it resumes in the
middle of an epoch. It does not at the end of one, after which a loader would begin with epoch 0;
nor where it has set up the loaders before it reads the checkpoint, as for
``trainer.estimated_stepping_batches``. And what it loads after the last batch of an epoch that it
cut short (``limit_train_batches``) is a place in the middle of that, while it begins the next one.
It tells a loader nothing else.

Issue: Lightning-AI/pytorch-lightning#20550 (states are not loaded after
``estimated_stepping_batches``); for the others, no issue known.
"""

from __future__ import annotations

import weakref
from types import FrameType
from typing import Any

from .frames import callers, codes_of


class FitLoop:
    """Lightning's, while it trains."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop

    @property
    def epoch(self) -> int:
        return int(self._loop.epoch_progress.current.processed)

    @property
    def batches_taken(self) -> int:
        """Of this epoch."""
        return int(self._loop.epoch_loop.batch_progress.current.ready)

    @property
    def takes_no_more(self) -> bool:
        """Of this epoch."""
        return bool(self.batches_taken >= self._loop.trainer.num_training_batches)

    @property
    def resumes(self) -> bool:
        trainer = self._loop.trainer
        paths = trainer.ckpt_path, getattr(trainer._checkpoint_connector, "_hpc_resume_path", None)
        return any(path is not None for path in paths)

    def take_state(self, loader: Any) -> dict[str, Any] | None:
        """Once: of this loader, where Lightning has it from a checkpoint and still keeps it."""
        # Lightning before 2.2 saves none.
        states: list[Any] = getattr(self._loop, "_combined_loader_states_to_load", [])
        stateful = [one for one in _loaders(self._loop) if hasattr(one, "state_dict")]
        if len(states) != len(stateful):
            return None
        if self._loop not in _given or _given[self._loop][0] is not states:
            _given[self._loop] = states, set()
        number = next(number for number, one in enumerate(stateful) if one is loader)
        given = _given[self._loop][1]
        if number in given:  # to a loader that this one has replaced
            return None
        given.add(number)
        state: dict[str, Any] = states[number]
        return state


# Of loops that kept states: these, and the numbers of those that loaders have been given.
_given: weakref.WeakKeyDictionary[Any, tuple[list[Any], set[int]]] = weakref.WeakKeyDictionary()


def find_fit_loop(caller: FrameType, loader: Any) -> FitLoop | None:
    """Lightning's, where it trains with this loader."""
    codes = codes_of("lightning.pytorch.loops.fit_loop", "_FitLoop")
    codes |= codes_of("pytorch_lightning.loops.fit_loop", "_FitLoop")
    for frame in callers(caller) if codes else ():
        if frame.f_code in codes:
            loop = frame.f_locals["self"]
            return FitLoop(loop) if any(one is loader for one in _loaders(loop)) else None
    return None


def _loaders(loop: Any) -> Any:
    return getattr(loop._combined_loader, "flattened", ())
