"""In which form the fields of samples are delivered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

import torch

from ..errors import ConfigError, DataError
from ..wording import listed, short
from .ragged import Ragged, unchecked_ragged
from .sample_layout import SampleField, SampleLayout

RaggedMode = Literal["views", "packed", "padded"]
Decode = Callable[[bytes], Any]
NameOf = Callable[[int], str]


class Unpack(Protocol):
    """Makes a field of the bytes that lie in objects. Small in a pickle."""

    @property
    def field(self) -> SampleField:
        """What it makes."""

    def __call__(self, packed: Ragged, numbers: torch.Tensor, name_of: NameOf) -> Ragged:
        """Of a batch, and the numbers of its samples, int64 [B]. Raises DataError."""


_OF_NOTHING = (
    ". The field is empty, or missing in this sample: give a function that takes b'' as well, such "
    "as lambda text: int(text or b'-1')"
)

KEY = "key"  # of a batch: the names of its samples


class Decoded(list[Any]):
    """One object per sample: what a ``decode`` function made of a field, or the samples' keys."""


@dataclass(frozen=True)
class Delivery:
    """Of the batches of one data set.

    Attributes:
        fields: Of a sample, in the order of a batch's keys.
        modes: Of the fields whose samples differ in length.
        decode: By field.
        return_key: Batches have the keys of their samples as well.
        unpack: By field.
    """

    fields: tuple[SampleField, ...]
    modes: Mapping[str, RaggedMode] = field(default_factory=dict)
    decode: Mapping[str, Decode] = field(default_factory=dict)
    return_key: bool = False
    unpack: Mapping[str, Unpack] = field(default_factory=dict)

    @property
    def needs_numbers(self) -> bool:
        """Whether the numbers of the samples must be known."""
        return self.return_key or bool(self.decode) or bool(self.unpack)

    def of_batch(self, made: dict[str, Any], numbers: Any, name_of: NameOf) -> dict[str, Any]:
        """Of what C++ made.

        Args:
            numbers: Of the samples, int64 [B], where they are needed.
            name_of: Of a sample, for errors, by its place in the batch.
        """
        return {
            one.name: self._of_field(one, made[one.name], numbers, name_of) for one in self.fields
        }

    def _of_field(self, field: SampleField, made: Any, numbers: Any, name_of: NameOf) -> Any:
        if not field.is_ragged:
            return made
        ragged = unchecked_ragged(*made)
        if field.name in self.unpack:
            ragged = self.unpack[field.name](ragged, numbers, name_of)
        if field.name in self.decode:
            return _decoded(field.name, ragged, name_of, self.decode[field.name])
        mode = self.modes.get(field.name, "views")
        if mode == "views":
            return ragged
        packed = _packed(ragged, field)
        return packed if mode == "packed" else packed.padded()


def _packed(ragged: Ragged, field: SampleField) -> Ragged:
    """Samples that differ in their first axis alone are then counted in its items."""
    packed = ragged.packed()
    item = field.shape[1:]
    if packed.shapes is None or field.open_axes != (0,):
        return packed
    size = field.item_bytes // field.element_bytes
    values = packed.values.view(-1, *[extent for extent in item if extent is not None])
    facts = (packed.min_length // size, packed.max_length // size, True)
    return unchecked_ragged(values, packed.starts // size, packed.lengths // size, None, facts)


def _decoded(name: str, ragged: Ragged, name_of: NameOf, decode: Decode) -> Decoded | torch.Tensor:
    made = Decoded()
    for place, sample in enumerate(ragged.unbind()):
        try:
            text = sample.numpy().tobytes()
            made.append(_integer(text) if decode is int else decode(text))
        except Exception as error:  # a StopIteration must not pass for the end of the epoch
            advice = "" if len(sample) else _OF_NOTHING
            raise DataError(
                f"{name_of(place)}: decode={{{name!r}: ...}}: {len(sample)} bytes could not be "
                f"decoded: {type(error).__name__}: {error}{advice}"
            ) from error
    if decode is int or decode is float:
        return torch.tensor(made, dtype=torch.int64 if decode is int else torch.float64)
    return made


def _integer(text: bytes) -> int:
    number = int(text)
    if not -(1 << 63) <= number < 1 << 63:
        raise OverflowError("it does not fit into int64")
    return number


def make_delivery(
    layout: SampleLayout,
    ragged: Any,
    decode: Any,
    return_key: bool = False,
    unpack: Mapping[str, Unpack] | None = None,
) -> Delivery:
    """The delivery that SampleDataset documents.

    Args:
        unpack: By field.

    Raises:
        ConfigError: Fields that there are not, or other words.
    """
    unpack = unpack or {}
    fields = tuple(
        unpack[field.name].field if field.name in unpack else field for field in layout.fields
    )
    of_ragged = [field for field in fields if field.is_ragged]
    if return_key and KEY in [field.name for field in fields]:
        raise ConfigError(
            f"return_key=True: there is a field {KEY!r}, whose place the keys of the samples would "
            "take: leave the field, or return_key=, out"
        )
    names = [field.name for field in of_ragged]
    modes = ragged if isinstance(ragged, Mapping) else dict.fromkeys(names, ragged)
    if not isinstance(ragged, Mapping):
        _check_mode(ragged)
    for name, mode in modes.items():
        _check_field("ragged=", name, names)
        _check_mode(mode)
    by_name = {field.name: field for field in of_ragged}
    for name, mode in modes.items():
        if mode == "padded" and by_name[name].open_axes != (0,):
            raise ConfigError(
                f"ragged='padded': field {name!r} is {by_name[name].described}, and only fields "
                "that differ in their first axis alone can be padded: give ragged={...} with "
                "'views' or 'packed' for it"
            )
    decode = {} if decode is None else decode
    if not isinstance(decode, Mapping):
        raise ConfigError(
            f"decode= is a dict of functions by field, as in {{'json': json.loads}}, not "
            f"{short(decode)}"
        )
    for name, function in decode.items():
        _check_field("decode=", name, names)
        if not by_name[name].takes_bytes:
            raise ConfigError(
                f"decode=: field {name!r} is {by_name[name].described}, and only fields of bytes "
                "are decoded: a transform= gets the others as tensors"
            )
        if not callable(function):
            raise ConfigError(f"decode=: {short(function)} for field {name!r} is no function")
        if isinstance(ragged, Mapping) and name in ragged:
            raise ConfigError(
                f"field {name!r} is in decode= and in ragged=: leave it out of ragged=, as decoded "
                "samples are a list"
            )
    return Delivery(fields, dict(modes), dict(decode), return_key, unpack)


def _check_mode(mode: Any) -> None:
    if mode not in get_args(RaggedMode):
        raise ConfigError(
            f"ragged= is 'views', 'packed' or 'padded', or a dict of these by field, not "
            f"{short(mode)}"
        )


def _check_field(option: str, name: Any, names: list[str]) -> None:
    if name not in names:
        known = listed([short(one) for one in names]) if names else "none"
        raise ConfigError(
            f"{option}: there is no field {short(name)} whose samples differ in length; those are: "
            f"{known}"
        )
