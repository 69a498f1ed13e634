"""Where Lightning resumes a loader, told by who takes the first batch of a pass.

Lightning saves the states of loaders in all its checkpoints, and loads them where it resumes in the
middle of an epoch. It does not at the end of one, after which a loader would begin with epoch 0;
nor where it has set up the loaders before it reads the checkpoint, as for
``trainer.estimated_stepping_batches``. And what it loads after the last batch of an epoch that it
cut short (``limit_train_batches``) is a place in the middle of that, while it begins the next one.

Note: why frames. It tells a loader nothing else (see datasets/callers.py). Its checkpoints are
tested with whatever version is installed.
"""

from __future__ import annotations

import sys
import weakref
from typing import TYPE_CHECKING, Any

from ..order.state import State
from ..torch_internals.frames import callers, codes_of

if TYPE_CHECKING:
    from .data_loader import DataLoader


def follow(loader: DataLoader) -> None:
    """Before the first batch of a pass: Lightning's loop, if that takes it, says where it begins.

    With torch.distributed all ranks come here, and are compared where the epoch is set.
    """
    fit = _find_fit_loop(loader)
    if fit is None:
        return
    dataset = loader._planned("follow()")
    if loader._goes_on:
        loader._goes_on = False
        loader.load_state_dict(loader.state_dict())
        return
    state = _state_not_loaded(fit, loader)
    if state is not None:
        loader.load_state_dict(state)
    # Note: with max_steps it takes one more batch into an epoch that was over when the checkpoint
    # was saved, and goes on with another one.
    taken = fit.epoch_loop.batch_progress.current.ready
    loader._goes_on = taken >= fit.max_batches
    clock, epoch = dataset._own_clock(), fit.epoch_progress.current.processed
    place = clock.next_position()
    if _resumes(fit) and place.start > 0 and (taken == 0 or loader._goes_on):
        loader.set_epoch(place.epoch + 1)
    elif not clock.was_moved and epoch > 0:  # made for this epoch, or not in the checkpoint
        loader.set_epoch(epoch)


def _resumes(fit: Any) -> bool:
    connector = fit.trainer._checkpoint_connector
    paths = fit.trainer.ckpt_path, getattr(connector, "_hpc_resume_path", None)
    return any(path is not None for path in paths)


def _find_fit_loop(loader: DataLoader) -> Any:
    """Lightning's, where it trains with this loader."""
    modules = ("lightning.pytorch.loops.fit_loop", "pytorch_lightning.loops.fit_loop")
    codes = set().union(*(codes_of(module, "_FitLoop") for module in modules))
    for frame in callers(sys._getframe(1)) if codes else ():
        if frame.f_code in codes:
            fit = frame.f_locals["self"]
            loaders = getattr(fit._combined_loader, "flattened", ())
            return fit if any(one is loader for one in loaders) else None
    return None


# Of loops that kept states: these, and the numbers of those that loaders have been given.
_given: weakref.WeakKeyDictionary[Any, tuple[list[State], set[int]]] = weakref.WeakKeyDictionary()


def _state_not_loaded(fit: Any, loader: DataLoader) -> State | None:
    """Of this loader, where Lightning has read it from a checkpoint and still keeps it."""
    # Lightning before 2.2 saves none.
    states: list[State] = getattr(fit, "_combined_loader_states_to_load", [])
    stateful = [one for one in fit._combined_loader.flattened if hasattr(one, "state_dict")]
    if len(states) != len(stateful):
        return None
    if fit not in _given or _given[fit][0] is not states:
        _given[fit] = states, set()
    number = next(number for number, one in enumerate(stateful) if one is loader)
    given = _given[fit][1]
    if number in given:  # to a loader that this one has replaced
        return None
    given.add(number)
    return states[number]
