"""The store over which the ranks of torch.distributed found each other.

Issue: pytorch/pytorch#151960 (no public API gives the store of a process group).
"""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

from .frames import find_name


def default_store(prefix: str) -> Any:
    """Of the default group, for keys of which all get this prefix; None where it has none (MPI)."""
    torch_side: Any = dist
    find = find_name("torch.distributed.distributed_c10d", "_get_default_store")
    store = None if find is None else find()
    if store is None or type(store) is torch_side.Store:
        return None
    return torch_side.PrefixStore(prefix, store)
