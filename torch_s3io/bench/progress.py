"""How an epoch goes: a line on the terminal that is replaced, or a line for each in a log."""

from __future__ import annotations

import time
from types import TracebackType

from ..console import on_terminal, show_progress, show_step
from .config import BenchConfig

_REFRESH_S = 0.2


class Progress:
    """Replaces its line a few times a second, and removes it at the end. ``update`` costs less than
    a microsecond when there is nothing to show."""

    def __init__(self, config: BenchConfig, epoch: int, show: bool) -> None:
        self._show = show
        self._head = f"{config.name}: epoch {epoch + 1} of {config.epochs}"
        self._steps = config.step_count
        self._compute_s = config.compute_s_per_step
        self._done = 0
        self._bytes = 0
        self._next = 0.0

    def __enter__(self) -> Progress:
        if self._show:
            show_step(self._head)
        self._show = self._show and on_terminal()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        if self._show:
            show_progress("")

    def update(self, size: int, seconds: float) -> None:
        if not self._show:
            return
        self._done += 1
        self._bytes += size
        now = time.perf_counter()
        if now < self._next:
            return
        self._next = now + _REFRESH_S
        speed = self._bytes / 1e9 / max(seconds, 1e-9)
        text = f"{self._head}: {self._done:,} of {self._steps:,} batches, {speed:.2f} GB/s"
        if self._compute_s:
            text += f", computing {min(1.0, self._done * self._compute_s / seconds):.0%}"
        show_progress(text)
