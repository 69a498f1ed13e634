"""What targets say about errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors that come from within must name the file."""
    try:
        yield
    except Exception as error:
        if str(path) not in str(error):
            raise AssertionError(f"an error that does not name {path}") from error
        raise
