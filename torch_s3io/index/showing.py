"""Progress on a terminal, while an index is made."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from ..console import progress_bar
from ..wording import printable

Show = Callable[[int, int], None]


@contextlib.contextmanager
def showing(text: str, unit: str) -> Iterator[Show]:
    """Gives a function that is called with how many are done, and how many there are; 0: that is
    not known. It shows nothing where stderr is no terminal."""
    make_bar = progress_bar()
    if make_bar is None:
        yield lambda done, total: None
        return
    is_scaled = unit == "B"
    with make_bar(desc=printable(text), unit=unit, unit_scale=is_scaled, total=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total or None
            bar.update(done - bar.n)

        yield show
