"""Patterns of keys, as ``glob.glob(pattern, recursive=True)`` takes those of files."""

from __future__ import annotations

import re

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
    text = "".join(f"(?:{_VISIBLE}[^/]+/)*" if one == "**" else f"{_name(one)}/" for one in folders)
    text += f"(?:{_VISIBLE}[^/]+/)*{_VISIBLE}[^/]*" if last == "**" else _name(last)
    return re.compile(text, re.DOTALL)


def _name(pattern: str) -> str:
    """Of one part of a path."""
    starts_hidden = pattern.startswith(".") or not is_pattern(pattern)
    text, at = "" if starts_hidden else _VISIBLE, 0
    while at < len(pattern):
        one = pattern[at]
        at += 1
        if one == "*":
            text += "" if text.endswith("[^/]*") else "[^/]*"
        elif one == "?":
            text += "[^/]"
        elif one == "[" and (end := _end_of_set(pattern, at)):
            text += _set(pattern[at:end])
            at = end + 1
        else:
            text += re.escape(one)
    return text


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
