"""The samples of batches, for who makes batches of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ..errors import ConfigError
from ..format.delivery import Decoded
from ..format.ragged import Ragged


def samples_of(batches: Iterator[Any]) -> Iterator[Any]:
    for batch in batches:
        yield from _samples(batch)
        del batch


def _samples(batch: Any) -> Iterator[Any]:
    if isinstance(batch, torch.Tensor) and batch.dim() > 0:
        return iter(batch.unbind(0))
    if isinstance(batch, Ragged | Decoded):
        return iter(batch)
    items = batch.values() if isinstance(batch, Mapping) else batch
    if not isinstance(batch, Mapping | tuple | list):
        raise ConfigError(
            f"transformers makes batches of samples, and the transform of this data set made a "
            f"{type(batch).__name__} of a batch, which has none: give batch_size=None to the data "
            "set, whose transform is then called with samples"
        )
    columns = zip(*map(_samples, items), strict=True)
    if isinstance(batch, Mapping):
        return (dict(zip(batch, column, strict=True)) for column in columns)
    return iter(columns)
