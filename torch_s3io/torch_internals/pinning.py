"""torch's thread that pins batches.

Issue: pytorch/pytorch#78018 (a batch is copied into shared memory, and once more to be pinned).
"""

from __future__ import annotations

from types import FrameType

from .frames import find_caller_in, find_name


def pins(caller: FrameType) -> bool:
    """Whether that thread calls: that it unpickles a batch says that pinning is wanted."""
    loop = find_name("torch.utils.data._utils.pin_memory", "_pin_memory_loop")
    return loop is not None and find_caller_in(caller, loop.__code__) is not None
