"""Python literals, as headers of ``.npy`` files hold them.

Read here rather than by ``ast.literal_eval``, which takes hundreds of bytes of memory for one of
text, warns of escapes, and whose compiler has overflowed its stack on hostile texts.
"""

from __future__ import annotations

import re
from typing import Any, NoReturn

_DEEPEST = 32
_TOKEN = re.compile(
    r"""[ \t\r\n]*(?:
        [uUbB]?(?P<text>'(?:[^'\\\x00-\x1f]|\\.)*'|"(?:[^"\\\x00-\x1f]|\\.)*")
      | (?P<number>0|[1-9]\d{0,18})L?       # Python 2 wrote 3L
      | (?P<word>True|False|None)\b
      | (?P<mark>[][(){},:])
    )""",
    re.VERBOSE | re.ASCII,
)
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))", re.I | re.DOTALL)
_ESCAPED = {"\\": "\\", "'": "'", '"': '"', "n": "\n", "r": "\r", "t": "\t"}
_WORDS = {"True": True, "False": False, "None": None}
_CLOSING = {"(": ")", "[": "]", "{": "}"}


def parse_literal(text: str) -> Any:
    """The value that ``text`` is: dicts, lists and tuples, not deeper than 32, of texts (bytes
    become texts), whole numbers of at most 19 digits, True, False and None.

    Raises:
        ValueError: It is something else.
    """
    parser = _Parser(text)
    value = parser.value(0)
    parser.end()
    return value


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def value(self, depth: int) -> Any:
        token = self._next()
        if token["text"] is not None:
            return _unescaped(token["text"][1:-1])
        if token["number"] is not None:
            return int(token["number"])
        if token["word"] is not None:
            return _WORDS[token["word"]]
        opening = token["mark"]
        if opening not in _CLOSING or depth == _DEEPEST:
            self._fail()
        if opening == "{":
            return self._dict(depth)
        items, ends_in_comma = self._items(_CLOSING[opening], depth)
        if opening == "[":
            return items
        return items[0] if len(items) == 1 and not ends_in_comma else tuple(items)

    def end(self) -> None:
        if self._text[self._at :].strip(" \t\r\n"):
            self._fail()

    def _items(self, closing: str, depth: int) -> tuple[list[Any], bool]:
        items: list[Any] = []
        has_comma = False
        while not self._takes(closing):
            if items and not has_comma:
                self._fail()
            items.append(self.value(depth + 1))
            has_comma = self._takes(",")
        return items, has_comma

    def _dict(self, depth: int) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        is_open = True
        while not self._takes("}"):
            key = self.value(depth + 1) if is_open else self._fail()
            if not isinstance(key, str) or key in entries or not self._takes(":"):
                self._fail()
            entries[key] = self.value(depth + 1)
            is_open = self._takes(",")
        return entries

    def _next(self) -> re.Match[str]:
        token = _TOKEN.match(self._text, self._at)
        if token is None:
            self._fail()
        self._at = token.end()
        return token

    def _takes(self, mark: str) -> bool:
        token = _TOKEN.match(self._text, self._at)
        if token is None or token["mark"] != mark:
            return False
        self._at = token.end()
        return True

    def _fail(self) -> NoReturn:
        raise ValueError(f"no literal at character {self._at}")


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(_character, text) if "\\" in text else text


def _character(escape: re.Match[str]) -> str:
    code = escape[1] or escape[2] or escape[3]
    if code is not None:
        return chr(int(code, 16))
    if escape[4] not in _ESCAPED:
        raise ValueError(f"unknown escape {escape[0]!r}")
    return _ESCAPED[escape[4]]
