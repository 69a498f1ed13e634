"""Patterns of keys, as ``glob.glob(pattern, recursive=True)`` takes those of files."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

_MAGIC = re.compile("[*?[]")
_VISIBLE = r"(?!\.)"


def is_pattern(path: str) -> bool:
    return _MAGIC.search(path) is not None


def fixed_part(pattern: str) -> str:
    """What all names that match begin with."""
    found = _MAGIC.search(pattern)
    return pattern if found is None else pattern[: found.start()]


def compiled(pattern: str) -> re.Pattern[str]:
    """For ``fullmatch``. ``*``, ``?`` and ``[...]`` stand for characters of a name, and ``**`` for
    any folders; what begins with a dot is matched by what begins with a dot."""
    *folders, last = pattern.split("/")
    groups = itertools.count()
    text, before = "", ""
    for one in folders:
        if one != "**":
            text += f"{_name(one, groups)}/"
        elif before != "**":
            text += f"(?:{_VISIBLE}[^/]+/)*"
        before = one
    text += f"(?:{_VISIBLE}[^/]+/)*{_VISIBLE}[^/]*" if last == "**" else _name(last, groups)
    return re.compile(text, re.DOTALL)


def _name(pattern: str, groups: Iterator[int]) -> str:
    """Of one part of a path.

    Note: what stands between two stars is taken where it comes first, for good: the group is
    atomic, as in Python's fnmatch. Else a long name would be looked at again and again.
    """
    fixed, at = [""], 0  # between the stars
    while at < len(pattern):
        one = pattern[at]
        at += 1
        if one == "*":
            if fixed[-1] or len(fixed) == 1:
                fixed.append("")
        elif one == "?":
            fixed[-1] += "[^/]"
        elif one == "[" and (end := _end_of_set(pattern, at)):
            fixed[-1] += _set(pattern[at:end])
            at = end + 1
        else:
            fixed[-1] += re.escape(one)
    begins_hidden = pattern.startswith(".") or not is_pattern(pattern)
    text = ("" if begins_hidden else _VISIBLE) + fixed[0]
    for part in fixed[1:-1]:
        group = f"g{next(groups)}"
        text += f"(?=(?P<{group}>[^/]*?{part}))(?P={group})"
    return text if len(fixed) == 1 else f"{text}[^/]*{fixed[-1]}"


def _end_of_set(pattern: str, begin: int) -> int:
    """Where the bracket that closes it is; 0: nowhere. One at the beginning belongs to the set."""
    at = begin + pattern.startswith("!", begin)
    return max(0, pattern.find("]", at + pattern.startswith("]", at)))


def _set(inside: str) -> str:
    is_negated = inside.startswith("!")
    singles, ranges = inside[is_negated:], []
    while found := re.search("(.)-(.)", singles, re.DOTALL):
        if found[1] <= found[2]:
            ranges.append(f"{re.escape(found[1])}-{re.escape(found[2])}")
        singles = singles[: found.start()] + singles[found.end() :]
    text = "".join(ranges) + re.escape(singles)
    if is_negated:
        return f"(?!/)[^{text}]" if text else "[^/]"
    return f"(?!/)[{text}]" if text else "(?!)"
