"""Samples of arrays of numpy: of ``.npy`` files and ``.npz`` archives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

import numpy as np

from ...errors import ConfigError
from ...index.column_writer import columns_in_memory
from ...index.place import Where
from ...wording import is_text, short
from ..layout import make_layout
from ..paths import Paths
from ..sample_format import Samples
from ..sample_layout import SampleField, SampleLayout
from ..sample_records import SampleSizes, TablePlace
from ..sample_table import SampleTable, needed_length_bytes
from .array_index import Shape, StoredArray, arrays_in, npy_contents, npz_contents
from .folder_index import Contents
from .inflating import Inflation
from .listing import Listing, list_files
from .table_fields import Labels, Stored, TableFields, array_of, in_table, table_fields

DATA = "data"

Compressed = Literal["error", "read"]


def npy_samples(
    paths: Paths,
    dtype: Any,
    shape: Any,
    labels: Labels,
    columns: Mapping[str, Any] | None,
    where: Where,
) -> Samples:
    """The samples of ``SampleDataset.from_npy_files``."""
    shape, contents = _checked_shape(shape), npy_contents(DATA)
    listing = list_files(paths, where, contents)
    given = table_fields(listing, labels, columns, [DATA])
    return _samples(listing, [_arrays(listing, contents)[DATA]], given, dtype, shape)


def npz_samples(
    paths: Paths,
    fields: Sequence[str],
    labels: Labels,
    columns: Mapping[str, Any] | None,
    where: Where,
    compressed: Compressed,
) -> Samples:
    """The samples of ``SampleDataset.from_npz``."""
    if compressed not in get_args(Compressed):
        raise ConfigError(f"compressed= is 'error' or 'read', not {short(compressed)}")
    is_list = isinstance(fields, Iterable)
    names = [fields] if isinstance(fields, str) else list(fields) if is_list else []
    if not names or not all(is_text(name) and name for name in names):
        raise ConfigError(
            f"fields= has the names of the arrays to read, such as ('image', 'mask'), not "
            f"{short(fields)}"
        )
    if len(set(names)) < len(names):
        raise ConfigError(f"fields={short(fields)}: has a name twice")
    contents = npz_contents(names, compressed == "read")
    listing = list_files(paths, where, contents)
    given = table_fields(listing, labels, columns, names)
    arrays = _arrays(listing, contents)
    for array in arrays.values() if compressed == "error" else ():
        array.refuse_compressed(listing.objects)
    return _samples(listing, [arrays[name] for name in names], given, None, None)


def _arrays(listing: Listing, contents: Contents) -> dict[str, StoredArray]:
    """Of the index; where there is none, as the files say."""
    if listing.index is not None:
        return arrays_in(listing.index)
    return arrays_in(columns_in_memory(*contents.read(listing.objects)))


def table_of_arrays(
    starts: tuple[Stored, ...],
    lengths: tuple[Stored, ...],
    values: tuple[Stored, ...],
    ends: Stored,
) -> SampleTable:
    starts, lengths, values = (tuple(map(array_of, some)) for some in (starts, lengths, values))
    return SampleTable(starts, lengths, values=values, ends=array_of(ends))


def _samples(
    listing: Listing,
    arrays: Sequence[StoredArray],
    given: TableFields,
    dtype: Any,
    shape: Shape | None,
) -> Samples:
    fields: list[SampleField] = []
    values: list[Stored] = []
    starts: list[Stored] = []
    lengths: list[Stored] = []
    unpack: dict[str, Inflation] = {}
    realigns = False
    for array in arrays:
        if not array.shape:
            stored = make_layout(array.numbers.array.dtype).fields[0].stored
            fields.append(in_table(array.name, stored, ()))
            values.append(array.numbers)
            continue
        field = array.as_field(listing.objects, dtype, shape, piece=len(starts))
        starts.append(array.starts)
        if array.is_packed:
            fields.append(SampleField(array.name, "uint8", False, (None,), -1, field.piece))
            lengths.append(array.packed)
            unpack[array.name] = Inflation(array, field)
            continue
        fields.append(field)
        lengths.append(array.lengths(field))
        realigns |= bool((array.starts.array % np.uint64(field.alignment)).any())
    if not starts:
        names = ", ".join(short(array.name) for array in arrays)
        raise ConfigError(
            f"fields=: there are only single numbers in the archives ({names}); read one array at "
            "least"
        )
    layout = SampleLayout((*fields, *given.fields), 0, realigns)
    load = partial(
        table_of_arrays,
        tuple(starts),
        _of_one_width(lengths),
        (*values, *given.values),
        listing.sizes(),
    )
    table = load()
    return Samples(
        layout,
        listing.objects,
        [TablePlace(load)],
        tables=[table],
        sizes=[SampleSizes.of([table], layout)],
        classes=given.classes,
        keys=listing.keys,
        unpack=unpack,
    )


def _of_one_width(lengths: Sequence[Stored]) -> tuple[Stored, ...]:
    arrays = [array_of(one) for one in lengths]
    kind = np.dtype(f"<u{needed_length_bytes(arrays)}")
    return tuple(
        stored if array.dtype == kind else np.ascontiguousarray(array, kind)
        for stored, array in zip(lengths, arrays, strict=True)
    )


def _checked_shape(shape: Any) -> Shape | None:
    if shape is None:
        return None
    items = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    if None not in items or not all(one is None or (type(one) is int and one > 0) for one in items):
        raise ConfigError(
            f"shape= is a tuple of extents, with None for axes of any length, one at least, not "
            f"{short(shape)}. Arrays of one shape are read by "
            "RecordDataset.from_npy(paths, records='files')"
        )
    return items
