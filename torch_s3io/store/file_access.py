"""How a data set reads files: directly or through the page cache, and what it keeps there."""

from __future__ import annotations

import numpy as np
from torch.utils.data import get_worker_info

from .. import _C
from ..config import DirectMode
from ..warning import warn
from ..wording import count_of
from .access import Access, Reading

# Direct reads of less, in random order, are slower than bringing a file into the page cache.
_SCATTERED_BYTES = 16 << 10
# What comes into the page cache with a record. A device reads larger blocks hardly faster, and a
# batch of scattered records waits for one for each of its records.
_FILL_BLOCK_BYTES = 128 << 10
_MOST_IN_WINDOW = 1 << 20  # records, whose numbers are listed in memory


class FileAccess(Access):
    """Files of a mounted file system."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._engine = "none yet"
        self.alignment = self._find_alignment()
        self._direct: DirectMode = reading.direct if self.alignment > 1 else "off"

    def _find_alignment(self) -> int:
        """What every direct read of these files satisfies; 1 if none is direct."""
        reading = self._reading
        if reading.direct == "off":
            return 1
        # Opening one file per file system tells whether O_DIRECT is accepted there.
        _, last = np.unique(reading.devices[::-1], return_index=True)
        numbers = (len(reading.devices) - 1 - last).tolist()
        opened = [_C.direct_alignment(reading.path(one), reading.direct) for one in numbers]
        closed = [one for one, alignment in zip(numbers, opened, strict=True) if alignment == 0]
        is_refused = reading.alignments == 0
        is_refused |= np.isin(reading.devices, reading.devices[closed])
        refused = np.flatnonzero(is_refused)
        if len(refused) and not reading.is_told:
            others = (
                f" (and {count_of(len(refused) - 1, 'other file')})" if refused[1:].size else ""
            )
            warn(
                f"{reading.path(int(refused[0]))}: the file system refuses O_DIRECT: direct='auto' "
                f"reads it through the page cache{others}; direct='off' does so without a warning"
            )
        if not any(opened):
            return 1
        return max(1, int(reading.alignments.max()))

    @property
    def block_bytes(self) -> int:
        return 1 if self._direct == "off" else self.alignment

    def make_store(self) -> _C.Store:
        return _C.FileObjects(
            direct=self._direct,
            engine=self._reading.engine,
            alignment=self.block_bytes,
            faults=self._reading.faults,
        )

    def check(self) -> None:
        """Finds out, once, what the engine will be, and warns where it is not io_uring."""
        if self._engine != "none yet":
            return
        wanted = self._reading.engine
        self._engine = "uring" if wanted == "auto" else wanted
        reason = _C.uring_unavailable_reason() if wanted == "auto" else ""
        if reason:
            self._engine = "threads"
            worker = get_worker_info()
            if worker is None or worker.id == 0:  # the others would say the same
                warn(
                    f"{reason}: reading with threads instead; engine='threads' does so without a "
                    "warning"
                )

    def changes_after(self, epochs: int) -> bool:
        """After a whole epoch, a set that fits in memory is kept in the page cache.

        Filling the cache costs several times a direct read, so a single pass does not do it.
        """
        if epochs == 0 or self._reading.direct != "auto" or self._direct == "off":
            return False
        if not self._fits():
            return False
        self._direct = "off"
        return True

    def fill_block_bytes(self, epochs: int) -> int:
        """Whether this epoch brings a set that fits in memory into the page cache, or what is
        missing of it there: from the first one on where it is small records in random order, which
        the device would otherwise read one by one; else from that on after which it stays."""
        reading = self._reading
        is_scattered = reading.neighbours * reading.spacing_bytes < _SCATTERED_BYTES
        is_time = epochs >= (0 if is_scattered else 1)
        fills = reading.direct == "auto" and is_time and self._fits()
        return _FILL_BLOCK_BYTES if fills else 0

    def _fits(self) -> bool:
        """Whether the set is kept in the page cache, in which it leaves room for others."""
        if not self._reading.keeps_cached:
            return False
        return self._reading.total_bytes <= _C.available_memory_bytes() // 2

    def window_to_read_ahead(self) -> int:
        """None where the device reads them as fast by themselves, or there is no room for two
        windows."""
        reading = self._reading
        if reading.window_records == 1 or reading.direct == "require":
            return 0
        is_scattered = reading.record_bytes < _SCATTERED_BYTES
        is_block = reading.window_block_records * reading.spacing_bytes >= _SCATTERED_BYTES
        room = _C.available_memory_bytes() // 4
        has_room = reading.window_records <= min(_MOST_IN_WINDOW, room // reading.spacing_bytes)
        return reading.window_records if is_scattered and is_block and has_room else 0

    def facts(self, engine_in_use: str) -> dict[str, str]:
        self._engine = engine_in_use or self._engine
        return {"engine": self._engine, "direct": self._direct}
