"""A class of ours among those that torch knows in batches.

Issue: pytorch/pytorch#65761 (``torch.utils._pytree`` is not public) and pytorch/pytorch#97498
(nor is the registry of ``default_collate``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch.utils import _pytree
from torch.utils.data._utils.collate import default_collate_fn_map


def register_batch_type(
    kind: type,
    flatten: Callable[[Any], tuple[list[Any], Any]],
    unflatten: Callable[[Iterable[Any], Any], Any],
    collate: Callable[..., Any],
) -> None:
    """Tensors in it are found by whoever maps over a batch; ``default_collate`` calls ``collate``
    with several of it."""
    _pytree.register_pytree_node(kind, flatten, unflatten)
    default_collate_fn_map[kind] = collate
