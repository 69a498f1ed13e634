"""How many connections each process of a machine may have."""

from __future__ import annotations

import os

from torch.utils.data import get_worker_info


def connections_here(connections: int) -> int:
    """The share of this process in what all ranks of this machine and their workers may have open,
    at least one. torchrun says how many ranks there are (LOCAL_WORLD_SIZE)."""
    text = os.environ.get("LOCAL_WORLD_SIZE", "")
    ranks = int(text) if text.isdecimal() else 1
    worker = get_worker_info()
    workers = 1 if worker is None else worker.num_workers
    return max(1, connections // max(1, ranks * workers))
