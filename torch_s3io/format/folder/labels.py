"""Classes of files, which are the names of folders that they lie in."""

from __future__ import annotations

import os

from ... import _C
from ..objects import Column, Objects


def label_files(objects: Objects, is_parent: bool) -> tuple[Column, tuple[str, ...]]:
    """Of each file the number of its class, int64 [n], and the classes, sorted.

    Args:
        is_parent: A class is the folder that a file lies in. Or the first folder of its name.

    Raises:
        DataError: A file has no such folder.
    """
    labels, classes = _C.folder_labels(
        paths=objects.paths.data,
        path_ends=objects.path_ends.data,
        name_bytes=objects.name_bytes,
        is_parent=is_parent,
    )
    return labels, tuple(map(os.fsdecode, classes))
