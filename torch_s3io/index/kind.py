"""What the commands ask of the index of a format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .column_file import ColumnFile
from .place import Where


@dataclass(frozen=True)
class IndexKind:
    """The indexes of a format.

    Attributes:
        name: As in ``head["recipe"]["kind"]``.
        data: What it is of, for people.
        takes: Whether these paths are such data.
        make: Makes the index of such data, or finds it; of these fields, where it is of some.
        is_current: Whether the data are still as an index says.
        describe: What is in an index: names, and texts for people.
        has_fields: Whether ``make`` takes fields.
    """

    name: str
    data: str
    takes: Callable[[Sequence[str]], bool]
    make: Callable[[Sequence[str], Where, Sequence[str]], ColumnFile]
    is_current: Callable[[ColumnFile], bool]
    describe: Callable[[ColumnFile], list[tuple[str, str]]]
    has_fields: bool = False
