"""What a format of samples is: how a data set finds its samples in what the user named."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..store.store import FileOrder
from .delivery import Unpack
from .keys import Keys
from .objects import Shard
from .paths import Paths
from .sample_layout import SampleLayout
from .sample_records import SampleSizes, TablePlace
from .sample_table import SampleTable


class Samples(NamedTuple):
    """What a format finds.

    Attributes:
        layout: Of every sample.
        objects: In the order of the samples.
        places: Of the tables, in the order of their objects.
        tables: Where they had to be read to find the samples.
        sizes: Of all samples; of several data sets, one for each. None: as the tables say.
        classes: The names of the labels, where these are numbers of names.
        keys: The names of the samples, where they have some.
        unpack: What makes fields of the bytes that lie in objects.
    """

    layout: SampleLayout
    objects: Sequence[Shard]
    places: Sequence[TablePlace]
    tables: Sequence[SampleTable] | None = None
    sizes: Sequence[SampleSizes] | None = None
    classes: tuple[str, ...] = ()
    keys: Keys | None = None
    unpack: Mapping[str, Unpack] = {}


@dataclass(frozen=True)
class SampleFormat:
    """How samples lie in objects.

    Attributes:
        name: As in ``SampleDataset(paths, format=name)``.
        matches: Whether the paths look like this format, by their names and what a folder holds.
        open: Finds the samples. What it cannot read is a DataError that says what is wrong and
            where. What it says is not believed either: a sample that does not lie within its object
            is an error of its batch.
    """

    name: str
    matches: Callable[[Paths, FileOrder], bool]
    open: Callable[[Paths, FileOrder], Samples]
