"""Keyword arguments that nobody has: an error that names the nearest one."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch.utils.data

_Class = TypeVar("_Class", bound=type)
_LOADER = torch.utils.data.DataLoader


def checks_keywords(kind: _Class) -> _Class:
    """A decorator of classes: what they are made with is looked at before Python does."""
    changed: Any = kind
    make = changed.__init__
    known = keywords_of(kind)

    @functools.wraps(make)
    def checked(self: Any, *arguments: Any, **options: Any) -> None:
        refuse_unknown(kind.__name__, options, known)
        make(self, *arguments, **options)

    changed.__init__ = checked
    return kind


def keywords_of(function: Callable[..., Any]) -> list[str]:
    """Those that are named in its signature."""
    parameters = inspect.signature(function).parameters.values()
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [parameter.name for parameter in parameters if parameter.kind in kinds]


def refuse_unknown(
    caller: str, given: Iterable[str], known: list[str], elsewhere: list[str] | None = None
) -> None:
    """Raises TypeError, as Python does, for the first one that is not known.

    Args:
        elsewhere: Options of the data set, for a loader. None: options of the loader are elsewhere.
    """
    unknown = next((name for name in given if name not in known), None)
    if unknown is None:
        return
    nearest = difflib.get_close_matches(unknown.lower(), known, 1)
    if nearest:
        advice = f": did you mean {nearest[0]!r}?"
    elif elsewhere is None and unknown in keywords_of(_LOADER):
        advice = ": it is one of the DataLoader"
    elif elsewhere is not None and unknown in elsewhere:
        advice = ": it is one of the data set"
    else:
        advice = f"; its options are {', '.join(known)}"
    raise TypeError(f"{caller}() has no option {unknown!r}{advice}")
