"""Checkpoints in any store: of ``torch.distributed.checkpoint``, and safetensors files.

``Writer`` and ``Reader`` are loaded when they are first asked for, with
``torch.distributed.checkpoint``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .reader import Reader
    from .writer import Writer

__all__ = ["Reader", "Writer"]


def __getattr__(name: str) -> Any:
    if name == "Reader":
        from .reader import Reader

        return Reader
    if name == "Writer":
        from .writer import Writer

        return Writer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
