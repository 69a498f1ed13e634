"""Records that differ in size, and what their buffers should have."""

from __future__ import annotations

import math

import numpy as np

from .. import _C
from .records import BufferBytes, Records

# Batches by which buffers are sized, and the records in them.
_FEWEST_BATCHES = 8
_MOST_LOOKED_AT = 1 << 17
_MANY = 128  # of which the largest one may be larger than a buffer
_DEVIATIONS = 4


class VaryingRecords(Records):
    """Their batches differ in size, too: one that is larger than a buffer gets memory of its own.

    Attributes:
        most_batches: By which buffers are sized.
    """

    most_batches = 512

    def buffer_bytes(self, form: _C.BatchForm, order: _C.RecordOrder, count: int) -> BufferBytes:
        """What all but very few batches of this order need: whatever it is, and however the records
        lie.

        Wanted is the largest of up to ``most_batches`` of them, one in 128 left out, or the mean
        and 4 standard deviations of them, if that is more. Most fit into the least.
        """
        num_batches = min(self.most_batches, max(_FEWEST_BATCHES, _MOST_LOOKED_AT // count))
        found = np.sort(
            _C.batch_sizes(form=form, order=order, batch_records=count, num_batches=num_batches)
        )
        if len(found) == 0:  # no table is right: whoever reads a batch hears of it
            found = np.array([form.most_bytes(1)])
        usual = found[: -(len(found) // _MANY) or None]
        wanted = max(int(usual[-1]), math.ceil(usual.mean() + _DEVIATIONS * usual.std()))
        wanted = max(1, wanted)  # of records that are all empty
        return BufferBytes(wanted, max(1, min(wanted, int(np.median(found)))))

    def buffer_problem(self, buffer_size: int, needed: BufferBytes, count: int) -> str:
        if buffer_size >= needed.least:
            return ""
        return (
            f"BufferPoolConfig.buffer_size is {buffer_size} bytes, but a batch of {count} "
            f"{self.noun}s needs {needed.least}, so that most batches would not fit: raise it, to "
            f"{needed.wanted} where hardly any should get memory of its own, or lower batch_size"
        )
