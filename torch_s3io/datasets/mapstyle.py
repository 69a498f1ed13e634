"""A map-style data set, for people who bring their own sampler."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ..errors import ConfigError, RangeError
from ..order.record_order import MixedOrder, StreamOrder
from ..wording import short
from .batches import as_numbers, rows, transformed
from .stored_dataset import StoredDataset


class RecordMapDataset(Dataset[Any]):
    """The records of a RecordDataset by their numbers.

    ::

        records = s3io.RecordMapDataset(dataset)
        records[7]         # one record
        records[[7, 3]]    # a batch, as views of one buffer
        records[:100]      # the same, as are numpy's masks; -1 is the last record

        sampler = torch.utils.data.BatchSampler(my_sampler, batch_size=64, drop_last=False)
        loader = torch.utils.data.DataLoader(records, sampler=sampler, batch_size=None)

    So the loader hands whole lists to ``[]``, the records are read together, and there is nothing
    to collate. With ``DataLoader(records, batch_size=64)`` they are read together too, and torch
    stacks them, which copies.

    The data set's order, shares of ranks and state do not matter here: they are the sampler's.
    ``transform`` is called with what ``[]`` returns (with ``pass_position``, in the data set's
    epoch, which nobody counts here: ``for epoch in records.epochs(10)`` sets it, also for workers
    that are alive already). The data set's ``batch_size`` does not matter either.

    Args:
        dataset: A RecordDataset or a view of one.
    """

    def __init__(self, dataset: StoredDataset) -> None:
        if not isinstance(dataset, StoredDataset):
            raise ConfigError(
                f"RecordMapDataset needs a RecordDataset or a SampleDataset, not {short(dataset)}; "
                "of a Zip, make one of each part"
            )
        order = dataset._order
        parts = order.parts if isinstance(order, MixedOrder) else ()
        if not dataset._records.has_rows or any(isinstance(one, StreamOrder) for one in parts):
            raise ConfigError(
                f"RecordMapDataset: {dataset!r} has no records by number from 0 on: give a "
                "TokenDataset without return_documents=True, which is no Mix"
            )
        self.dataset = dataset

    def __len__(self) -> int:
        return self.dataset._num_numbers

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dataset!r})"

    def epochs(self, stop: int) -> Iterator[int]:
        """The epochs up to ``stop - 1``, from the one that the data set is set to on; each is set
        before the loop gets it. See RecordDataset.epochs."""
        return self.dataset.epochs(stop)

    def __getitem__(self, index: int | slice | Sequence[int]) -> Any:
        """A record, or for a slice, a sequence of numbers or a mask a batch of them. Negative
        numbers count from the end.

        Raises:
            RangeError: A number that does not exist.
        """
        if isinstance(index, slice):
            return self.dataset.get_batch(range(*index.indices(len(self))))
        if np.ndim(index) == 0 and hasattr(index, "__index__"):
            return self.__getitems__(self._numbers([operator.index(index)]))[0]
        return self.dataset.get_batch(self._numbers(index))

    def _numbers(self, index: Any) -> Sequence[int]:
        """From 0 on."""
        count = len(self)
        mask = np.asarray(index) if np.ndim(index) == 1 else None
        if mask is not None and mask.dtype == bool:
            if len(mask) != count:
                raise RangeError(f"a mask of {len(mask)} values, but there are {count} records")
            return [int(number) for number in np.flatnonzero(mask)]
        return self._existing([one + count if one < 0 else one for one in as_numbers(index)])

    def _existing(self, numbers: Sequence[int]) -> Sequence[int]:
        """Raises RangeError: those of windows of documents go on in later epochs."""
        for number in numbers:
            if not 0 <= number < len(self):
                raise RangeError(
                    f"record {number} does not exist: the data set has {len(self)}, from 0 on"
                )
        return numbers

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """The records of these numbers, read together."""
        options, epoch = self.dataset._options, self.dataset._current_position().epoch
        batch = self.dataset._fetch(self._existing(as_numbers(indices)))
        if options.with_record_numbers:
            records, numbers = batch
            samples: Any = zip(rows(records), numbers.unbind(0), strict=True)
        else:
            samples = rows(batch)
        return [transformed(options, epoch, sample) for sample in samples]
