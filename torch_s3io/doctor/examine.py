"""Runs all checks, and says it in text or as JSON."""

from __future__ import annotations

import os
import platform
import stat
import textwrap
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from .. import _C
from ..config import refuse_address
from ..errors import AccessError, ConfigError, NotFoundError
from ..store.stores import scheme_of, store_of
from ..wording import printable
from . import devices, indexes, storage, system
from .finding import Finding

_LABELS = {"ok": "ok", "note": "note", "costs": "COSTS"}
_WIDTH = 100
_INDENT = " " * 24


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What was found, in the order in which it is shown."""

    path: Path | str | None
    findings: list[Finding]

    @property
    def costs(self) -> list[Finding]:
        """The findings that cost performance."""
        return [finding for finding in self.findings if finding.status == "costs"]

    def as_json(self) -> dict[str, Any]:
        return {
            "torch_s3io": _C.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "path": None if self.path is None else str(self.path),
            "costs": len(self.costs),
            "findings": [asdict(finding) for finding in self.findings],
        }

    def as_text(self) -> str:
        lines = [
            f"torch_s3io {_C.__version__}, torch {torch.__version__}, "
            f"Python {platform.python_version()}",
            "",
        ]
        for finding in self.findings:
            lines.append(_paragraph(_LABELS[finding.status], finding.topic, finding.found))
            lines += [
                _paragraph("", label, text)
                for label, text in (("  costs:", finding.cost), ("  to fix:", finding.fix))
                if text
            ]
        if self.path is not None:
            lines.insert(1, f"storage: {printable(str(self.path))}")
        count = len(self.costs)
        verdict = "Nothing here costs performance."
        if count:
            topics = ", ".join(finding.topic for finding in self.costs)
            verdict = (
                f"{count} {'thing costs' if count == 1 else 'things cost'} something: {topics}."
            )
        if self.path is None:
            verdict += " Storage was not read: doctor FOLDER does that."
        return "\n".join([*lines, "", verdict])


def _paragraph(label: str, topic: str, text: str) -> str:
    head = f"{label:<7} {topic:<15} "
    return textwrap.fill(
        printable(text),
        _WIDTH,
        initial_indent=head,
        subsequent_indent=_INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )


def examine(
    path: str | os.PathLike[str] | None = None,
    *,
    quick: bool = False,
    report: Callable[[str], None] = lambda text: None,
) -> Examination:
    """Looks at the machine and, with a path, at the storage below it: a minute of reading.

    Args:
        path: A file to read, or a folder, in which a file of 1 GiB or more is read or else a
            temporary one is made. Or ``s3://bucket/prefix``: the largest of the first objects
            below it is read, and one of a byte is written there and removed.
        quick: Read for some seconds only; the figures are rough.
        report: Is told what is being done.

    Raises:
        NotFoundError, AccessError: The path is not there, or may not be read.
        ConfigError: There is nothing to read there, and no room to make it; or it is a device.
    """
    if isinstance(path, str) and scheme_of(path) == "s3":
        return _examine_bucket(path, quick, report)
    if path is not None:
        refuse_address(os.fspath(path))
    place = None if path is None else _checked(Path(path))
    report("looking at the machine")
    findings = [
        system.kernel(),
        system.build(),
        system.io_uring(),
        system.system_calls(),
        system.huge_pages(),
        system.locked_memory(),
        system.open_files() if place is None else _open_files(place),
        system.memory(),
        devices.cuda(),
    ]
    nodes = devices.numa(place)
    if nodes is not None:
        findings.append(nodes)
    if place is not None:
        findings += indexes.indexes(place)
        with storage.file_to_read(place, quick, report) as (file, origin):
            findings.append(storage.direct_reads(file))
            findings += storage.read_speed(file, origin, quick, report)
    return Examination(path=place, findings=findings)


def _examine_bucket(path: str, quick: bool, report: Callable[[str], None]) -> Examination:
    store_of(path)  # where it was built without, that says so
    from .buckets import buckets

    findings = [system.build(), system.open_files(), system.memory()]
    return Examination(path=path, findings=[*findings, *buckets(path, quick, report)])


def _open_files(place: Path) -> Finding:
    return system.open_files(storage.count_files(place), place)


def _checked(path: Path) -> Path:
    try:
        mode = path.stat().st_mode
    except PermissionError:
        raise AccessError(f"{path}: may not be reached by this user") from None
    except OSError as error:
        raise NotFoundError(
            f"{path}: {error.strerror}; name a folder or file on the storage to look at"
        ) from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ConfigError(
            f"{path}: is neither a file nor a folder; of a disk, name a folder or file that lies "
            "on it"
        )
    if not os.access(path, os.R_OK):
        raise AccessError(f"{path}: may not be read by this user")
    return path
