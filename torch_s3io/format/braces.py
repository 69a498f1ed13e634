"""Brace patterns, as shells have them: a{0..2}.tar stands for a0.tar, a1.tar and a2.tar."""

from __future__ import annotations

import itertools
import math
import re

from ..errors import ConfigError
from ..wording import short

_MOST = 1_000_000
_NESTED = re.compile(r"\{[^}]*\{")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(-?[0-9]{1,18})\.\.(-?[0-9]{1,18})(?:\.\.(-?[0-9]{1,18}))?")


def expand_braces(text: str) -> list[str]:
    """All that the text stands for, in its order.

    {000..119} are numbers; where one of both ends begins with 0, all have as many digits. {0..9..3}
    are 0, 3, 6 and 9. {train,test} are these words. Other braces are characters of a name.

    Raises:
        ConfigError: They are more than a million; braces within braces.
    """
    if _NESTED.search(text):
        raise ConfigError(f"{short(text)}: has braces within braces: give a list of patterns")
    parts: list[range | list[str]] = []
    widths: list[int] = []
    end = 0
    for found in _BRACES.finditer(text):
        alternatives = _alternatives(found[1])
        if alternatives is None:
            continue
        parts += [[text[end : found.start()]], alternatives[0]]
        widths += [0, alternatives[1]]
        end = found.end()
    if math.prod(map(len, parts)) > _MOST:
        raise ConfigError(
            f"{short(text)}: these braces stand for more than {_MOST:,} paths: name fewer"
        )
    texts = [
        [f"{one:0{width}}" if isinstance(one, int) else one for one in part]
        for part, width in zip(parts, widths, strict=True)
    ]
    return ["".join(one) + text[end:] for one in itertools.product(*texts)]


def _alternatives(inside: str) -> tuple[range | list[str], int] | None:
    """What one pair of braces stands for, and how many digits a number has at least."""
    numbers = _RANGE.fullmatch(inside)
    if numbers is None:
        return (inside.split(","), 0) if "," in inside else None
    first, last = int(numbers[1]), int(numbers[2])
    step = abs(int(numbers[3] or 1)) or 1
    has_zeros = any(re.match("-?0[0-9]", one) for one in (numbers[1], numbers[2]))
    width = max(len(numbers[1]), len(numbers[2])) if has_zeros else 0
    if last < first:
        return range(first, last - 1, -step), width
    return range(first, last + 1, step), width
