"""The indexes of the data below a path: whether they hold."""

from __future__ import annotations

import shlex
from pathlib import Path

from ..errors import ConfigError, DataError, Error
from ..format.index_kinds import indexes_of, kind_of
from .finding import Finding


def indexes(place: Path) -> list[Finding]:
    """A finding, where the folder of the path has indexes."""
    folder = place if place.is_dir() else place.parent
    current: list[str] = []
    stale: list[str] = []
    damaged: list[str] = []
    for file in indexes_of(str(folder)):
        try:
            file.check()
            (current if kind_of(file).is_current(file) else stale).append(file.path)
        except ConfigError:
            continue  # of another version
        except DataError:
            damaged.append(file.path)
        except Error:
            stale.append(file.path)
    data = {"current": current, "stale": stale, "damaged": damaged}
    if damaged:
        return [
            Finding(
                topic="index",
                status="costs",
                found=f"{', '.join(damaged)}: is damaged: a checksum is another one",
                cost="the next program that reads the data may get other bytes, or an error",
                fix=f"rm {shlex.join(damaged)}: the index is made again",
                data=data,
            )
        ]
    if stale:
        return [
            Finding(
                topic="index",
                status="costs",
                found=f"{', '.join(stale)}: the data have changed since it was made",
                cost="the next program that reads them waits until it is made again",
                fix=f"python -m torch_s3io index {shlex.quote(str(folder))}, with the paths that "
                "the program reads",
                data=data,
            )
        ]
    if not current:
        return []
    return [Finding(topic="index", found=f"as the data are: {', '.join(current)}", data=data)]
