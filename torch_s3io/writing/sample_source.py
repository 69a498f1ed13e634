"""Samples that a user's module makes: how they are found, and whose fault an error is."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from ..errors import ConfigError, Error
from ..wording import listed, one_line
from .record_rows import describe

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_TERMINATED = 128 + signal.SIGTERM
_PLACE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True)
class SampleSource:
    """What makes samples.

    Attributes:
        name: ``module:name``.
        made_by: The iterable.
        fields: Those that it names itself; None if it does not.
    """

    name: str
    made_by: Any
    fields: Mapping[str, Any] | None

    @property
    def count(self) -> int | None:
        """Of the samples, where the iterable knows it."""
        try:
            return len(self.made_by)
        except Exception:  # whatever the user's __len__ does
            return None

    def samples(self) -> Iterator[Mapping[str, Any]]:
        """
        Raises:
            ConfigError: A sample that is no dict.
            Error: What the iterable raised, and where.
        """
        iterator, number = _call(f"{self.name}: iter() failed", iter, _iterable(self.made_by)), 0
        while True:
            try:
                sample = next(iterator)
            except StopIteration:
                return
            except (Exception, SystemExit) as error:
                _raise(f"{self.name}: sample {number} could not be made", error)
            if not isinstance(sample, Mapping):
                raise ConfigError(
                    f"{self.name}: sample {number}: a dict is expected, such as {{'image': ..., "
                    f"'label': ...}}, not {describe(sample)}"
                )
            yield sample
            number += 1


def find_source(place: str) -> SampleSource:
    """What ``module:name`` names: an iterable, or a callable that gives one. The current folder is
    searched first.

    Raises:
        ConfigError: There is no such module or name, or it gives nothing that can be iterated.
        Error: What importing or calling it raised, and where.
    """
    if not _PLACE.fullmatch(place):
        module = place.partition(":")[0].removesuffix(".py").strip("./").replace("/", ".")
        raise ConfigError(
            f"--from {place}: is not MODULE:NAME, with the module as import has it, such as "
            f"{module or 'mydata'}:samples"
        )
    module_name, _, name = place.partition(":")
    found = _attribute(_import(module_name), name, module_name)
    fields = getattr(found, "fields", None)
    if isinstance(found, type) or not _is_iterable(found):
        found = _call_without_arguments(place, found)
        fields = getattr(found, "fields", fields)
    if not _is_iterable(found):
        raise ConfigError(
            f"{place}: an iterable of dicts is expected, or a function that gives one, such as a "
            f"generator, not {describe(found)}"
        )
    return SampleSource(place, found, fields if isinstance(fields, Mapping) else None)


def _import(name: str) -> Any:
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path and not getattr(sys.flags, "safe_path", False):
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            _raise(f"{name}: cannot be imported", error)
        files = [file[:-3] for file in sorted(os.listdir(here)) if file.endswith(".py")]
        near = difflib.get_close_matches(name, files, n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(
            f"--from: there is no module {error.name}: {meant}It is looked for in {here} and "
            "where Python finds modules (PYTHONPATH)"
        ) from None
    except (Exception, SystemExit) as error:
        _raise(f"{name}: cannot be imported", error)


def _attribute(module: Any, name: str, module_name: str) -> Any:
    try:
        return functools.reduce(getattr, name.split("."), module)
    except AttributeError:
        names = [
            other
            for other, value in vars(module).items()
            if not other.startswith("_") and not inspect.ismodule(value)
        ]
        near = difflib.get_close_matches(name, names, n=1)
        meant = f"did you mean {near[0]}?" if near else f"it has {listed(names) or 'no names'}"
        file = getattr(module, "__file__", None) or "built in"
        raise ConfigError(f"--from: {module_name} ({file}) has no {name}: {meant}") from None


def _call_without_arguments(place: str, found: Any) -> Any:
    if not callable(found):
        return found
    try:
        inspect.signature(found).bind()
    except TypeError as error:
        raise ConfigError(
            f"{place}: is called without arguments, and cannot be: {error}; name a function that "
            "needs none, such as functools.partial makes"
        ) from None
    except ValueError:  # of one that is not Python's
        pass
    return _call(f"{place}: the call failed", found)


def _call(what: str, call: Any, *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except (Exception, SystemExit) as error:
        _raise(what, error)


def _is_iterable(found: Any) -> bool:
    return hasattr(type(found), "__iter__") or _is_map_style(found)


def _is_map_style(found: Any) -> bool:
    """As data sets of torch are, which need not raise IndexError at their end."""
    kind = type(found)
    return hasattr(kind, "__getitem__") and hasattr(kind, "__len__")


def _iterable(found: Any) -> Any:
    if hasattr(type(found), "__iter__"):
        return found
    return (found[number] for number in range(len(found)))


def _raise(what: str, error: BaseException) -> NoReturn:
    """Raises an Error with the last line of the traceback, and the place in the user's code."""
    if isinstance(error, SystemExit) and error.code == _TERMINATED:
        raise error  # SIGTERM, to this command
    last = one_line(traceback.format_exception_only(error)[-1].strip(), 500)
    raise Error(f"{what}: {last}{_place_of(error)}") from error


def _place_of(error: BaseException) -> str:
    """`` (file, line 5, in function)``: the last place in the user's own code, if there is one."""
    here = f"{os.getcwd()}{os.sep}"
    if isinstance(error, SyntaxError):
        return f" ({(error.filename or '').removeprefix(here)}, line {error.lineno})"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not _is_ours(f.filename)]
    if not frames:
        return ""
    last = ([f for f in frames if not _is_installed(f.filename)] or frames)[-1]
    return f" ({last.filename.removeprefix(here)}, line {last.lineno}, in {last.name})"


def _is_ours(file: str) -> bool:
    return file.startswith((_PACKAGE, "<frozen "))


def _is_installed(file: str) -> bool:
    return file.startswith((sys.prefix, sys.base_prefix)) or file.startswith("<")
