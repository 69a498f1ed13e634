"""Packing the samples of an iterable into a data set."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from ..format.manifest import Manifest
from ..format.sample_layout import make_sample_layout
from ..format.samples import SampleManifest
from .sample_fields import fields_of, narrower_options
from .sample_source import SampleSource
from .sample_writer import AlignSamples, SampleWriter

_SINGLE = "sample 0"  # as a writer names what write() is given


@dataclass(frozen=True)
class PackedSamples:
    """What a pack did.

    Attributes:
        manifest: Of the data set.
        replaced: The data set whose place it took; None where there was none that can be read.
        narrower: Options that would make fields smaller and simpler, as all samples are now; empty
            if there are none.
    """

    manifest: SampleManifest
    replaced: Manifest | SampleManifest | None
    narrower: str


def pack_samples(
    source: SampleSource,
    folder: str,
    *,
    given: Mapping[str, Any],
    shard_bytes: int,
    align_samples: AlignSamples,
    overwrite: bool,
    on_fields: Callable[[Mapping[str, Any]], None],
    on_sample: Callable[[], object],
) -> PackedSamples:
    """Writes the samples one by one: an iterable may use the same memory for all of them.

    Args:
        given: Fields, whatever the source or its first sample says of them.
        on_fields: Called with all fields, before the first sample is written.
        on_sample: Called after each sample.

    Raises:
        ConfigError: There are no samples, or one is not of the fields; the folder holds a data set.
        Error: What the source, or writing, raised. The folder has what it had before.
    """
    samples = source.samples()
    first = next(samples, None)
    if first is None:
        raise ConfigError(f"{source.name}: gives no samples, and a data set has one at least")
    is_guessed = source.fields is None
    try:
        fields = {**(fields_of(first, given) if is_guessed else source.fields or {}), **given}
        make_sample_layout(fields)
    except ConfigError as error:
        raise _about(source, 0, error) from None
    on_fields(fields)
    options: Any = {"shard_bytes": shard_bytes, "align_samples": align_samples}
    with (
        _removed_unless_finished(folder),
        SampleWriter(folder, fields=fields, overwrite=overwrite, **options) as writer,
    ):
        for number, sample in enumerate(itertools.chain([first], samples)):
            try:
                writer.write(sample)
            except ConfigError as error:
                raise _about(source, number, error) from None
            on_sample()
        manifest = writer.finish()
    guessed = fields.keys() - given.keys() if is_guessed else set()
    return PackedSamples(manifest, writer.replaced, narrower_options(folder, manifest, guessed))


@contextlib.contextmanager
def _removed_unless_finished(folder: str) -> Iterator[None]:
    """Removes the folder after an error, if it was not there before."""
    was_there = os.path.lexists(folder)
    try:
        yield
    except BaseException:
        if not was_there:
            with contextlib.suppress(OSError):  # it has something of somebody else
                os.rmdir(folder)
        raise


def _about(source: SampleSource, number: int, error: ConfigError) -> ConfigError:
    """The error with the number that the sample has here."""
    text = str(error)
    if not text.startswith(_SINGLE):
        return ConfigError(f"{source.name}: {text}")
    text = text.removeprefix(_SINGLE)
    if source.fields is None and number > 0 and text.startswith(", field"):
        text += "; fields are as in sample 0, and --field NAME=KIND gives another kind"
    return ConfigError(f"{source.name}: sample {number}{text}")
