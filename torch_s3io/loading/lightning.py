"""Where Lightning's loop begins an epoch of our loader; it does not always say so itself."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..torch_internals.lightning import find_fit_loop

if TYPE_CHECKING:
    from .data_loader import DataLoader


def follow(loader: DataLoader) -> None:
    """Before the first batch of a pass: Lightning's loop, if that takes it, says where it begins.

    With torch.distributed all ranks come here, and are compared where the epoch is set.
    """
    loop = find_fit_loop(sys._getframe(), loader)
    if loop is None:
        return
    if loader._goes_on:
        loader._goes_on = False
        loader.load_state_dict(loader.state_dict())
        return
    state = loop.take_state(loader)
    if state is not None:
        loader.load_state_dict(state)
    # Note: with max_steps it takes one more batch into an epoch that was over when the checkpoint
    # was saved, and goes on with another one.
    loader._goes_on = loop.takes_no_more
    clock, epoch = loader._planned("follow()")._own_clock(), loop.epoch
    place = clock.next_position()
    if loop.resumes and place.start > 0 and (loop.batches_taken == 0 or loader._goes_on):
        loader.set_epoch(place.epoch + 1)
    elif not clock.was_moved and epoch > 0:  # made for this epoch, or not in the checkpoint
        loader.set_epoch(epoch)
