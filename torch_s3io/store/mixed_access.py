"""How a data set reads objects of several stores."""

from __future__ import annotations

from collections.abc import Mapping

from .. import _C
from .access import Access


class MixedAccess(Access):
    """Each store's objects in that store's way; one reader waits for all of them.

    Args:
        parts: By the schemes of paths, "" for those without one.
    """

    def __init__(self, parts: Mapping[str, Access]) -> None:
        self._parts = parts
        self.alignment = max(part.alignment for part in parts.values())

    @property
    def block_bytes(self) -> int:
        return max(part.block_bytes for part in self._parts.values())

    def make_store(self) -> _C.Store:
        stores: dict[str, _C.Store] = {}
        for scheme, part in self._parts.items():
            stores |= part.make_stores(f"{scheme}://" if scheme else "")
        return _C.CompositeStore(stores)

    def check(self) -> None:
        for part in self._parts.values():
            part.check()

    def changes_after(self, epochs: int) -> bool:
        return any([part.changes_after(epochs) for part in self._parts.values()])

    def fill_block_bytes(self, epochs: int) -> int:
        return max(part.fill_block_bytes(epochs) for part in self._parts.values())

    def facts(self, engine_in_use: str) -> dict[str, str]:
        facts: dict[str, str] = {}
        for part in self._parts.values():
            for name, fact in part.facts("").items():
                facts[name] = fact if facts.get(name, fact) == fact else "mixed"
        return {**facts, **({"engine": engine_in_use} if engine_in_use else {})}
