"""What a sample has beside what lies in its file: labels, and columns of the user's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from ...errors import ConfigError
from ...wording import count_of, is_text, short
from ..layout import is_torch_only, make_layout, name_of
from ..objects import Column
from ..sample_layout import SampleField
from .folder_index import IndexColumn
from .listing import Listing

Labels = Literal["folder"] | Any  # or one integer for each file, or None
LABEL = "label"
Stored = Column | IndexColumn


def array_of(column: Stored) -> Column:
    return column.array if isinstance(column, IndexColumn) else column


class TableFields(NamedTuple):
    """Fields of which the table has the values.

    Attributes:
        values: Of each field: [n, *shape].
        classes: The names of the labels, where they are folders.
    """

    fields: list[SampleField]
    values: list[Stored]
    classes: tuple[str, ...]


def table_fields(
    listing: Listing, labels: Labels, columns: Mapping[str, Any] | None, taken: list[str]
) -> TableFields:
    """The label, if there is one, then the columns.

    Args:
        taken: Names of fields that there are already.

    Raises:
        DataError: ``labels="folder"`` and a file that lies in no folder.
        ConfigError: Labels or columns that do not go with the files.
    """
    count = len(listing.objects)
    made = TableFields([], [], ())
    if labels is not None:
        made.fields.append(in_table(LABEL, "int64", ()))
        if isinstance(labels, str) and labels == "folder":
            numbers, classes = listing.labels()
            made.values.append(numbers)
            made = made._replace(classes=classes)
        else:
            made.values.append(_given_labels(labels, count))
    taken = [*taken, *(field.name for field in made.fields)]
    for name, array in _checked_columns(columns, taken).items():
        field, column = _given_column(name, array, count)
        made.fields.append(field)
        made.values.append(column)
    return made


def in_table(name: str, stored: str, shape: tuple[int, ...]) -> SampleField:
    return SampleField(name, stored, False, shape, -1, is_in_table=True)


def _given_labels(labels: Any, count: int) -> Column:
    if isinstance(labels, (str, bytes)):
        raise ConfigError(
            f"labels= is 'folder', None, or one integer for each file, not {short(labels)}"
        )
    if isinstance(labels, Mapping):
        raise ConfigError(
            "labels= is 'folder', None, or one integer for each file in their order, not a dict: "
            "give [labels[path] for path in paths], where paths is the list of files"
        )
    array = _array("labels=", labels, count)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise ConfigError(
            f"labels= is 'folder', None, or one integer for each file, not {array.dtype} of shape "
            f"{array.shape}; columns={{'y': array}} takes others"
        )
    if array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise ConfigError(f"labels= has {array.max()}, which is more than int64 has: 2**63 - 1")
    return array.astype(np.int64)


def _checked_columns(columns: Any, taken: list[str]) -> Mapping[str, Any]:
    if columns is None:
        return {}
    if not isinstance(columns, Mapping):
        raise ConfigError(
            f"columns= is a dict of arrays with a value for each file, not {short(columns)}"
        )
    for name in columns:
        if not is_text(name) or not name or name in taken:
            raise ConfigError(
                f"columns=: {short(name)} is no name of a further field; there are {taken} already"
            )
    return columns


def _given_column(name: str, values: Any, count: int) -> tuple[SampleField, Column]:
    what = f"columns={{{name!r}: ...}}"
    if isinstance(values, torch.Tensor) and is_torch_only(values.dtype):
        raise ConfigError(
            f"{what}: is of {name_of(values.dtype)}, which numpy lacks: give values.float() of it, "
            "or its bytes, values.view(torch.uint8), and view them as they were in the loop"
        )
    array = _array(what, values, count)
    try:
        layout = make_layout(array.dtype)
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}") from None
    if not layout.is_plain:
        raise ConfigError(f"{what}: is a structure; make its fields columns instead")
    if 0 in array.shape[1:]:
        raise ConfigError(f"{what}: its values have the shape {array.shape[1:]}, which is empty")
    native = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    return in_table(name, layout.fields[0].stored, array.shape[1:]), native


def _array(what: str, values: Any, count: int) -> np.ndarray[Any, Any]:
    try:
        array = np.asarray(values)
    except Exception as error:  # whatever an object's own conversion raises
        raise ConfigError(f"{what}: is no array of numbers: {error}") from None
    if array.ndim == 0 or len(array) != count:
        found = "one value" if array.ndim == 0 else count_of(len(array), "value")
        raise ConfigError(
            f"{what} has {found}, but there are {count_of(count, 'file')}: give one for each, in "
            "the order of dataset.files"
        )
    return array
