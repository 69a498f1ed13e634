"""What frameworks cannot do with our data sets: refused with what to call instead."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any, NoReturn

from torch.utils.data import IterableDataset

from ..errors import ConfigError
from ..torch_internals.accelerate import cuts_without_size
from ..torch_internals.map_style import is_concatenation, options_of_loader, who_asks_for_class

_ORDERING = ("shuffle", "sampler", "batch_sampler")


class NotIndexed(IterableDataset[Any]):
    """An iterable data set that says so to those who take it for a map-style one.

    Note: without ``super()``, whose ``__class__`` would be the one here.
    """

    _instead_of_numbers = (
        "Its parts are dataset.subset(0, 100) and dataset.split([0.9, 0.1]); its records by number "
        "are dataset.get_batch([7, 3]), or those of a RecordMapDataset(dataset), which Subset, "
        "random_split, ConcatDataset and samplers take. A Mix is several data sets as one"
    )

    def __getitem__(self, index: Any) -> NoReturn:
        self._refuse_numbers("an index")

    def _refuse_numbers(self, what: str) -> NoReturn:
        kind = type(self).__name__
        raise ConfigError(
            f"{what} is not for a {kind}, which is iterated, batch by batch, in an order of its "
            f"own. {self._instead_of_numbers}"
        )

    @property  # type: ignore[misc]
    def __class__(self) -> Any:  # isinstance() asks for it, with which torch's constructors begin
        asks = who_asks_for_class(sys._getframe(1))
        if is_concatenation(asks):
            self._refuse_numbers("ConcatDataset")
        given = options_of_loader(asks)
        refuse_what_the_data_set_does({name: given.get(name) for name in _ORDERING})
        return type(self)


def refuse_what_the_data_set_does(options: dict[str, Any]) -> None:
    """Options of a loader that make another order, or batches."""
    for name, value in options.items():
        is_flag = name in ("shuffle", "drop_last")
        if value is None or (is_flag and not value):
            continue
        what = "makes the batches and their order itself"
        if name.endswith("sampler"):
            raise ConfigError(
                f"{name}= in the DataLoader: the data set {what}; a RecordMapDataset of it takes "
                "samplers"
            )
        raise ConfigError(
            f"{name}={value} in the DataLoader: the data set {what}. Set it there: "
            f"dataset.with_options({name}={value}), or when it is made"
        )


def refuse_to_be_stacked() -> NoReturn:
    raise ConfigError(
        "the data set makes the batches, and this DataLoader would stack them once more, with a "
        "dimension in front: give batch_size=None to the DataLoader, or to the data set, which "
        "then yields samples (torch_s3io.DataLoader has the right default). To stack batches, "
        "give the DataLoader a collate_fn of your own"
    )


def refuse_a_place_within_a_batch() -> NoReturn:
    raise ConfigError(
        "transformers makes batches of the samples of this data set's batches, so the loop may be "
        "in the middle of one, which a state cannot say: give batch_size=None to the data set, "
        "which then yields samples"
    )


def refuse_to_be_cut(caller: FrameType) -> None:
    """Raises ConfigError where accelerate would fail to, with an error that does not say why."""
    if cuts_without_size(caller):
        raise ConfigError(
            "accelerate with dispatch_batches=False makes batches and shares of samples: give "
            "batch_size=None to the data set and batch_size=... to the DataLoader; or leave "
            "dispatch_batches alone; or do not prepare() the loader, as the data set finds its "
            "rank by itself"
        )
