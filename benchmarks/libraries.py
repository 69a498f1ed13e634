"""Libraries of others."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch


def library(name: str) -> Any:
    """The module, imported."""
    if name == "streaming":
        _let_torchvision_be_imported()
    return import_module(name)


def _let_torchvision_be_imported() -> None:
    """Streaming imports torchvision for data sets of pictures. PyPI's is built for CUDA: beside
    another PyTorch its operators are missing, two of which it describes as it is imported."""
    try:
        import_module("torchvision")
    except RuntimeError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor a, Tensor b, float c) -> Tensor")
