"""The formats that SampleDataset reads: one module each, and one line here."""

from __future__ import annotations

from typing import Any

from ..errors import ConfigError
from ..store.store import FileOrder
from ..wording import listed, short
from .paths import Paths, refuse_missing
from .sample_folder import OWN_FORMAT
from .sample_format import SampleFormat
from .tar.tar_format import TAR_FORMAT

_FORMATS = {format.name: format for format in (OWN_FORMAT, TAR_FORMAT)}


def register_format(format: SampleFormat) -> None:
    """SampleDataset then reads it. A later one of the same name takes the place of an earlier."""
    _FORMATS[format.name] = format


def format_of(paths: Paths, order: FileOrder, name: Any) -> SampleFormat:
    """The format of this name; of None, the first one that matches.

    Raises:
        NotFoundError: The paths name nothing.
        ConfigError: There is none.
    """
    known = listed([short(one) for one in _FORMATS])
    if name is not None:
        if not isinstance(name, str) or name not in _FORMATS:
            raise ConfigError(f"format={short(name)}: there is no such format, only {known}")
        return _FORMATS[name]
    for format in _FORMATS.values():
        if format.matches(paths, order):
            return format
    refuse_missing(paths, order)
    raise ConfigError(
        f"{short(paths)}: is no folder with a manifest.json, as SampleWriter writes it, nor of "
        f"another format that is known (there are {known}); files of records of one size are read "
        "by RecordDataset"
    )
