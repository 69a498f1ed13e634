"""New inputs from old ones: bytes are changed anywhere, JSON also as the tree that it is."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

MOST_BYTES = 1 << 20
_MOST_VALUES = 20_000

_NUMBERS = (
    *(0, 1, -1, 2, 64, 255, 4096, 65536, 10**6, 2**31, 2**32, 2**40, 2**46, 2**48),
    *(2**61, 2**62 - 1, 2**62, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30, 10**400, 10**4299),
    *(0.0, -0.0, 0.5, 1.5, 1e-300, 1e308, float("nan"), float("inf"), float("-inf")),
)
_TEXTS = (
    *("", "x", "\0", "\ud800", "a\nb", "é", "\U0001f600", "..", "a/b", "/", "0x10", "1e5", "True"),
    *("0" * 5000, "9" * 5000, "x" * 300, "(" * 1000, "%s{0}", "\x1b[2J", "\u202e"),
)
_LEAVES = (None, True, False, [], {}, [[]], {"": None}, *_NUMBERS, *_TEXTS)
_OPENERS = (b"[", b"(", b"{", b"{'a':", b'{"a":', b"[1,", b"- ", b"-", b"&a [", b"? ")


class Mutator:
    """Makes inputs out of a corpus. Of one seed and one corpus always the same ones.

    Args:
        tokens: What the format that is read consists of.
    """

    def __init__(self, seed: int, tokens: Sequence[bytes] = ()) -> None:
        self._random = random.Random(seed)
        numbers = [str(number).encode() for number in _NUMBERS]
        texts = [text.encode("utf-8", "surrogatepass") for text in _TEXTS]
        self._tokens = [*tokens, *tokens, *tokens, *numbers, *texts]

    def mutated(self, corpus: Sequence[bytes]) -> bytes:
        data = self._random.choice(corpus)
        tree = self._tree_of(data) if self._random.random() < 0.5 else None
        if tree is not None:
            return self._mutated_tree(tree[0], corpus)
        for _ in range(self._random.choice((1, 1, 1, 2, 3, 5))):
            data = self._random.choice(_ON_BYTES)(self, data, corpus)
        return data[:MOST_BYTES]

    # ---- Bytes.

    def _range(self, data: bytes) -> tuple[int, int]:
        """A range of some bytes; sometimes a long one."""
        begin = self._random.randint(0, len(data))
        most = self._random.choice((1, 2, 4, 16, 64, len(data)))
        return begin, min(len(data), begin + self._random.randint(0, max(1, most)))

    def _set_byte(self, data: bytes, _: Sequence[bytes]) -> bytes:
        if not data:
            return b"\0"
        at = self._random.randrange(len(data))
        bit = data[at] ^ 1 << self._random.randrange(8)
        value = self._random.choice((bit, bit, 0, 0x7F, 0x80, 0xFF, self._random.randrange(256)))
        return data[:at] + bytes([value]) + data[at + 1 :]

    def _cut(self, data: bytes, _: Sequence[bytes]) -> bytes:
        begin, end = self._range(data)
        return data[:begin] + data[end:]

    def _double(self, data: bytes, _: Sequence[bytes]) -> bytes:
        begin, end = self._range(data)
        times = self._random.choice((1, 1, 2, 8, 300))
        return data[:end] + data[begin:end] * times + data[end:]

    def _move(self, data: bytes, _: Sequence[bytes]) -> bytes:
        begin, end = self._range(data)
        rest = data[:begin] + data[end:]
        at = self._random.randint(0, len(rest))
        return rest[:at] + data[begin:end] + rest[at:]

    def _put_token(self, data: bytes, _: Sequence[bytes]) -> bytes:
        begin, end = self._range(data)
        return data[:begin] + self._random.choice(self._tokens) + data[end:]

    def _put_number(self, data: bytes, _: Sequence[bytes]) -> bytes:
        """In the place of one that is there."""
        digits = [at for at, byte in enumerate(data) if 0x30 <= byte <= 0x39]
        if not digits:
            return self._put_token(data, ())
        begin = end = self._random.choice(digits)
        while end < len(data) and 0x30 <= data[end] <= 0x39:
            end += 1
        number = self._random.choice((*_NUMBERS, self._random.randrange(300)))
        return data[:begin] + str(number).encode() + data[end:]

    def _join(self, data: bytes, corpus: Sequence[bytes]) -> bytes:
        """The beginning of one input and the end of another."""
        other = self._random.choice(corpus)
        return data[: self._range(data)[0]] + other[self._range(other)[0] :]

    def _nest(self, data: bytes, _: Sequence[bytes]) -> bytes:
        depth = self._random.choice((3, 3, 3, 50, 50, 300, 300, 1100, 20_000))
        begin = self._range(data)[0]
        return data[:begin] + self._random.choice(_OPENERS) * depth + data[begin:]

    # ---- Trees.

    def _tree_of(self, data: bytes) -> tuple[Any] | None:
        try:
            return (json.loads(data),) if data[:1] in b"{[ \n" and len(data) < 1 << 16 else None
        except (ValueError, RecursionError):
            return None

    def _mutated_tree(self, tree: Any, corpus: Sequence[bytes]) -> bytes:
        for _ in range(self._random.choice((1, 1, 1, 2, 3))):
            tree = self._changed(tree, corpus)
        if not _is_small(tree):
            return self._put_number(self._random.choice(corpus), ())
        try:
            indent = self._random.choice((None, None, 1))
            text = json.dumps(tree, ensure_ascii=self._random.random() < 0.7, indent=indent)
        except (ValueError, RecursionError):
            return b"{}"
        return text.encode("utf-8", "surrogatepass")[:MOST_BYTES]

    def _changed(self, tree: Any, corpus: Sequence[bytes]) -> Any:
        """The tree with another value in one place."""
        places = list(_places(tree))
        if not places or self._random.random() < 0.02:
            return self._value(tree, corpus)
        holder, key = self._random.choice(places)
        choice = self._random.randrange(8)
        if choice == 0:
            del holder[key]
        elif choice == 1 and isinstance(holder, dict):
            holder[self._key(tree)] = holder.pop(key)
        elif choice == 2 and isinstance(holder, dict):
            holder[self._key(tree)] = self._value(holder[key], corpus)
        elif choice == 3 and isinstance(holder, list):
            holder[key:key] = [holder[key]] * self._random.choice((1, 2, 70, 2000))
        else:
            holder[key] = self._value(holder[key], corpus)
        return tree

    def _key(self, tree: Any) -> str:
        keys = [key for _, key in _places(tree) if isinstance(key, str)]
        return self._random.choice([*keys, *keys, *_TEXTS])

    def _value(self, old: Any, corpus: Sequence[bytes]) -> Any:
        """Something like the old value, something else, or a part of another input."""
        choice = self._random.randrange(6)
        if choice == 0 and isinstance(old, int):
            return old + self._random.choice((-1, 1, 7, 256, 1 << 32))
        if choice == 1:
            return self._wrapped(old)
        if choice == 2:
            other = self._tree_of(self._random.choice(corpus))
            values = [holder[key] for holder, key in _places(other and other[0])]
            return json.loads(json.dumps(self._random.choice(values))) if values else None
        if choice == 3:
            return self._random.choice(self._tokens).decode("utf-8", "backslashreplace")
        leaf = self._random.choice(_LEAVES)
        return leaf.copy() if isinstance(leaf, (list, dict)) else leaf

    def _wrapped(self, value: Any) -> Any:
        for _ in range(self._random.choice((1, 2, 30, 400))):
            value = [value] if self._random.random() < 0.5 else {"a": value}
        return value


_ON_BYTES: tuple[Callable[[Mutator, bytes, Sequence[bytes]], bytes], ...] = (
    *(Mutator._set_byte, Mutator._set_byte, Mutator._cut, Mutator._double, Mutator._move),
    *(Mutator._put_token, Mutator._put_token, Mutator._put_number, Mutator._put_number),
    *(Mutator._join, Mutator._nest),
)


def _is_small(tree: Any) -> bool:
    """Whether it is written in no time. Parts may be in it many times, and hold one another."""
    waiting, count = [tree], 0
    while waiting and count + len(waiting) < _MOST_VALUES:
        value = waiting.pop()
        count += 1
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return not waiting


def _places(tree: Any) -> Any:
    """(holder, key or index) of all values in a tree; of deep trees those that are not too deep."""
    waiting = [(tree, 0)]
    while waiting:
        holder, depth = waiting.pop()
        keys: Any = ()
        if isinstance(holder, dict):
            keys = list(holder)
        elif isinstance(holder, list):
            keys = range(min(len(holder), 200))
        for key in keys:
            yield holder, key
            if depth < 50:
                waiting.append((holder[key], depth + 1))
