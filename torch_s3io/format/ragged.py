"""Batches of samples that differ in length."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

import torch

from ..config import check_int
from ..errors import ConfigError, RangeError
from ..keywords import checks_keywords
from ..torch_internals.batch_types import register_batch_type
from ..wording import short
from .ragged_checks import check_kinds, check_shapes, facts_of
from .ragged_copies import joined, side_by_side

# Which PyTorch 2.4 has not: it looks for the shortest and the longest when it needs them.
_NESTED_TAKES_BOUNDS = (
    "max_seqlen" in inspect.signature(torch.nested.nested_tensor_from_jagged).parameters
)


@checks_keywords
class Ragged:
    """A batch of B samples that differ in length, over one tensor.

    ::

        tokens = batch["tokens"]  # Ragged
        tokens[0], tokens[-1]  # views: tensors [length, *item]
        for sample in tokens: ...
        tokens.padded(0, length=2048, truncate=True)  # [B, 2048, *item]
        packed = tokens.packed()  # one after the other, as flash attention wants them
        attend(packed.values, packed.cu_seqlens(), packed.max_length)

    Sample ``i`` is ``values[starts[i] : starts[i] + lengths[i]]``. Samples may lie in any order,
    apart from each other or over each other; that costs no copy. Its parts are tensors on one
    device. A Ragged is pickled and pinned like a tensor, and is a node of torch's pytrees. To
    change the values, make a new one: ``Ragged(tokens.values.long(), tokens.starts,
    tokens.lengths)``.

    Args:
        values: [N, *item] of any dtype: the items of all samples, and whatever lies between them.
        starts: int64 [B]: where a sample begins, in items of ``values``.
        lengths: int64 [B]: how many items it has.
        shapes: int64 [B, ndim], where samples are ragged in several axes: ``r[i]`` then has the
            shape ``shapes[i]``, whose product is ``lengths[i]``. ``values`` is then [N].

    Attributes:
        max_length: The longest sample's length, an int; ``min_length`` is the shortest one's.
        is_packed: Whether the samples follow each other, and ``values`` holds nothing else.

    Raises:
        ConfigError: Dtypes, shapes or devices do not fit.
        RangeError: A sample does not lie within ``values``. (On a GPU, this check waits for it.)
    """

    values: torch.Tensor
    starts: torch.Tensor
    lengths: torch.Tensor
    shapes: torch.Tensor | None
    min_length: int
    max_length: int
    is_packed: bool

    def __init__(
        self,
        values: torch.Tensor,
        starts: torch.Tensor,
        lengths: torch.Tensor,
        shapes: torch.Tensor | None = None,
    ) -> None:
        check_kinds(values, starts, lengths, shapes)
        self.values = values
        self.starts = starts
        self.lengths = lengths
        self.shapes = shapes
        self.min_length, self.max_length, self.is_packed = facts_of(values, starts, lengths)
        if shapes is not None:
            check_shapes(shapes, lengths)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> torch.Tensor:
        """Sample ``index``, counted from the end where negative: a view [length, *item]."""
        try:
            number = operator.index(index)
        except TypeError:
            raise ConfigError(
                f"a Ragged is indexed by the number of one sample, not by {short(index)}: for "
                "several, take [ragged[i] for i in ...]"
            ) from None
        if not -len(self) <= number < len(self):
            raise RangeError(f"sample {number} does not exist: the batch has {len(self)}")
        start, length = int(self.starts[number]), int(self.lengths[number])
        sample = self.values[start : start + length]
        return sample if self.shapes is None else sample.view(self.shapes[number].tolist())

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self.unbind())

    def unbind(self) -> tuple[torch.Tensor, ...]:
        """All samples, as views."""
        samples = self._flat_samples()
        if self.shapes is None:
            return samples
        shapes = self.shapes.tolist()
        return tuple(sample.view(shape) for sample, shape in zip(samples, shapes, strict=True))

    def packed(self) -> Ragged:
        """The samples one after the other, with nothing in between: itself where they are, else
        one copy."""
        if self.is_packed:
            return self
        values = joined(self.values, self.starts, self.lengths, self.max_length)
        starts = self.lengths.cumsum(0) - self.lengths
        facts = (self.min_length, self.max_length, True)
        return unchecked_ragged(values, starts, self.lengths, self.shapes, facts)

    @property
    def offsets(self) -> torch.Tensor:
        """int64 [B + 1], of packed samples: where each begins, and where the last one ends."""
        if not self.is_packed:
            raise ConfigError(
                "offsets are those of packed samples, and these have gaps, or another order: call "
                "packed() first, as in ragged.packed().offsets"
            )
        return self._starts_and_end()

    def cu_seqlens(self) -> torch.Tensor:
        """int32 [B + 1], of packed samples: the offsets, as flash attention takes them."""
        if len(self.values) >= 1 << 31:
            raise RangeError(
                f"cu_seqlens() are 32-bit integers, which cannot count {len(self.values)} items: "
                "make smaller batches, or use offsets"
            )
        return self.offsets.to(torch.int32)

    def mask(self, length: int | None = None) -> torch.Tensor:
        """bool [B, L]: which items of ``padded(length=length)`` are those of a sample."""
        self._refuse_shapes("mask()")
        width = self.max_length if length is None else check_int("length", length, 0)
        return torch.arange(width, device=self.lengths.device) < self.lengths[:, None]

    def padded(
        self, value: float = 0, length: int | None = None, truncate: bool = False
    ) -> torch.Tensor:
        """The samples as rows of one tensor, [B, L, *item], in new memory.

        Args:
            value: What follows a sample that is shorter than L.
            length: L; None: that of the longest sample.
            truncate: Cut samples that are longer than ``length``, which is an error otherwise.
        """
        self._refuse_shapes("padded()")
        width = self.max_length if length is None else check_int("length", length, 0)
        if self.max_length > width and not truncate:
            number = int((self.lengths > width).nonzero()[0])
            raise ConfigError(
                f"sample {number} has {int(self.lengths[number])} items, more than "
                f"length={width}: length={self.max_length} has room for all samples of this batch, "
                "and truncate=True cuts those that are longer"
            )
        return side_by_side(self.values, self.starts, self.lengths, width, value)

    def nested(self) -> torch.Tensor:
        """A nested tensor of torch's jagged layout: a view, also where samples lie apart. What
        torch can do with it is more where ``packed()`` made them follow each other."""
        self._refuse_shapes("nested()")
        bounds: dict[str, int] = {}
        if _NESTED_TAKES_BOUNDS:
            bounds = {"min_seqlen": self.min_length, "max_seqlen": self.max_length}
        nested: torch.Tensor = torch.nested.nested_tensor_from_jagged(
            self.values,
            self._starts_and_end(),
            lengths=None if self.is_packed else self.lengths,
            **bounds,
        )
        return nested

    def to(self, device: str | torch.device | int, non_blocking: bool = False) -> Ragged:
        """Its tensors on ``device``; itself where they are."""
        return map_ragged(lambda tensor: tensor.to(device, non_blocking=non_blocking), self)

    def pin_memory(self) -> Ragged:
        """Its tensors in page-locked memory; itself where they are. torch's loaders call it."""
        return map_ragged(lambda tensor: tensor.pin_memory(), self)

    def __repr__(self) -> str:
        values = self.values
        item = f" {[*values.shape[1:]]}" if values.dim() > 1 else ""
        device = "" if values.device.type == "cpu" else f", device={str(values.device)!r}"
        axes = "" if self.shapes is None else f" in {self.shapes.shape[1]} axes"
        return (
            f"Ragged({len(self)} samples{axes} of {self.min_length} to {self.max_length} items of "
            f"{str(values.dtype).removeprefix('torch.')}{item}, is_packed={self.is_packed}{device})"
        )

    def _flat_samples(self) -> tuple[torch.Tensor, ...]:
        lengths = self.lengths.tolist()
        if self.is_packed and lengths:
            return tuple(self.values.split(lengths))
        places = zip(self.starts.tolist(), lengths, strict=True)
        return tuple(self.values[start : start + length] for start, length in places)

    def _starts_and_end(self) -> torch.Tensor:
        end = self.starts.new_full((1,), len(self.values))  # in torch's jagged layout: any number
        return torch.cat([self.starts, end])

    def _refuse_shapes(self, method: str) -> None:
        if self.shapes is not None:
            raise ConfigError(
                f"{method} is for samples that differ in their first axis alone, and these have "
                "shapes: use ragged[i] or unbind(), or make a Ragged of values, starts and "
                "lengths. Of a SampleDataset's field whose other axes have fixed sizes, "
                "ragged={'name': 'packed'} makes a Ragged without shapes, and 'padded' a tensor"
            )


def unchecked_ragged(
    values: torch.Tensor,
    starts: torch.Tensor,
    lengths: torch.Tensor,
    shapes: torch.Tensor | None,
    facts: tuple[int, int, bool],
) -> Ragged:
    """For who knows that all fits: no check, and no look at the tensors.

    Args:
        facts: ``min_length``, ``max_length`` (of no samples: 0) and ``is_packed``.
    """
    ragged: Ragged = object.__new__(Ragged)
    ragged.values = values
    ragged.starts = starts
    ragged.lengths = lengths
    ragged.shapes = shapes
    ragged.min_length, ragged.max_length, ragged.is_packed = facts
    return ragged


def map_ragged(function: Callable[[torch.Tensor], Any], ragged: Ragged) -> Ragged:
    """Of the tensors that ``function`` makes of its own; itself where these are the same."""
    tensors, facts = _flatten(ragged)
    mapped = [function(tensor) for tensor in tensors]
    if all(map(operator.is_, mapped, tensors)):
        return ragged
    return _unflatten(mapped, facts)


def _flatten(ragged: Ragged) -> tuple[list[Any], tuple[int, int, bool]]:
    shapes = [] if ragged.shapes is None else [ragged.shapes]
    facts = (ragged.min_length, ragged.max_length, ragged.is_packed)
    return [ragged.values, ragged.starts, ragged.lengths, *shapes], facts


def _unflatten(tensors: Iterable[Any], facts: tuple[int, int, bool]) -> Ragged:
    values, starts, lengths, *shapes = tensors
    return unchecked_ragged(values, starts, lengths, shapes[0] if shapes else None, facts)


def _refuse_to_stack(*_: Any, **__: Any) -> NoReturn:
    raise ConfigError(
        "default_collate stacks samples, and a Ragged is a batch already: give batch_size=None to "
        "the loader (torch_s3io.DataLoader has it by default), or a collate_fn of your own"
    )


register_batch_type(Ragged, _flatten, _unflatten, collate=_refuse_to_stack)
