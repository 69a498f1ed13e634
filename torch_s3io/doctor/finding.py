"""One thing that was found, and helpers to read what the kernel says of itself."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Status = Literal["ok", "note", "costs"]

_NUMBER = re.compile("-?[0-9]{1,18}")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was found about one topic.

    Attributes:
        topic: As in "io_uring".
        status: "ok"; "note": worth knowing, nothing to do; "costs": costs performance, or keeps
            something from working.
        found: What there is, in a sentence.
        cost: What that costs.
        fix: The command, or the setting, that changes it.
        data: The figures behind it, for programs.
    """

    topic: str
    status: Status = "ok"
    found: str
    cost: str = ""
    fix: str = ""
    data: dict[str, Any] = field(default_factory=dict)


def read_text(path: Path) -> str:
    """A file of the kernel, stripped; empty if there is none."""
    try:
        return path.read_text("utf-8", "surrogateescape").strip()  # names may be any bytes
    except OSError:
        return ""


def whole_number(text: str) -> int | None:
    """The number that the text is, of at most 18 digits; None where it is something else."""
    return int(text) if _NUMBER.fullmatch(text) else None


def chosen(text: str) -> str:
    """The choice in brackets of a setting such as "always [madvise] never"."""
    return text.partition("[")[2].partition("]")[0]


def process_status(key: str) -> str:
    """A line of /proc/self/status."""
    for line in read_text(Path("/proc/self/status")).splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return value.strip()
    return ""


def in_bytes(count: float) -> str:
    """A size as people read it: 16 KiB, 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            return f"{count:.4g} {unit}"
        count /= 1024
    raise AssertionError
