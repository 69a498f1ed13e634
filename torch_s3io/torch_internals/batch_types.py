"""A class of ours among those that torch knows in batches.

Issue: pytorch/pytorch#65761 (``torch.utils._pytree`` is not public) and pytorch/pytorch#97498
(nor is the registry of ``default_collate``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch.utils.data  # noqa: F401  (and with it the modules that are looked into)

from .frames import find_name


def register_batch_type(
    kind: type,
    flatten: Callable[[Any], tuple[list[Any], Any]],
    unflatten: Callable[[Iterable[Any], Any], Any],
    collate: Callable[..., Any],
) -> None:
    """Tensors in it are found by whoever maps over a batch; ``default_collate`` calls ``collate``
    with several of it."""
    register = find_name("torch.utils._pytree", "register_pytree_node")
    if register is not None:
        register(kind, flatten, unflatten)
    collators = find_name("torch.utils.data._utils.collate", "default_collate_fn_map")
    if collators is not None:
        collators[kind] = collate
