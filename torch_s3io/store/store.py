"""What a data set asks of the store that its objects lie in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Literal, NamedTuple

from .. import _C
from .access import Access, Reading

FileOrder = Literal["name", "natural"]


class Found(NamedTuple):
    """An object that a source names: a path, a pattern, or a folder.

    Attributes:
        path: Absolute.
        name: The end of the path, below the fixed part of the source: the folder of a file, the
            folders of a pattern in front of its first wildcard, a folder itself. It survives a copy
            of the objects to another place, whatever else the data set has elsewhere.
    """

    path: str
    name: str


class Identity(NamedTuple):
    """A version of an object: another one is another object, or a changed one.

    Attributes:
        device: What it lies on, by any number.
        inode: 0: not compared.
        modified_ns: Since 1970.
    """

    device: int
    inode: int
    size_bytes: int
    modified_ns: int

    def to_core(self) -> _C.ObjectVersion:
        return _C.ObjectVersion(*self)  # as it has them; data sets may have a million


class Inspected(NamedTuple):
    """What a store says of an object that it has not opened.

    Attributes:
        direct_alignment: Of direct reads, in bytes; 0: there are none.
    """

    identity: Identity
    direct_alignment: int

    @property
    def size_bytes(self) -> int:
        return self.identity.size_bytes


class Store(ABC):
    """Objects by path, of which all that is here is asked before batches are read: names, versions,
    and what a format reads of them to find its records. Any thread's. Processes that are spawned
    get a pickled copy.

    Batches are read by the C++ store that its ``access`` makes.

    Attributes:
        block_bytes: How much of neighbouring records ``shuffle="block"`` keeps together where
            nothing else is said: what a read brings for little more than its start costs.
    """

    block_bytes = 128 << 10

    @abstractmethod
    def absolute(self, path: str) -> str:
        """The path from everywhere."""

    @abstractmethod
    def is_folder(self, path: str) -> bool: ...

    @abstractmethod
    def has(self, path: str) -> bool:
        """Whether there is an object, or something in its place."""

    @abstractmethod
    def matches(self, path: str, order: FileOrder) -> list[str]:
        """The objects and folders that a name or a pattern names; of a name, itself."""

    @abstractmethod
    def find(self, path: str, order: FileOrder) -> list[Found]:
        """The objects that a name or a pattern names.

        Raises:
            NotFoundError: There are none; the text says how to name some.
        """

    def expect(self, paths: Iterable[str]) -> None:  # noqa: B027  (nothing has to)
        """All of these will be asked for, one by one: the store may look at them together. What is
        wrong with one is told when it is asked for."""

    @abstractmethod
    def below(self, folder: str) -> Iterable[str]:
        """All objects in a folder and those below it, but nothing hidden.

        Raises:
            AccessError: One cannot be listed.
        """

    @abstractmethod
    def inspect(self, paths: list[str]) -> list[Inspected]:
        """Of each object.

        Raises:
            NotFoundError, AccessError: One is missing, or may not be looked at.
            ConfigError: One is something else than an object, such as a folder.
        """

    @abstractmethod
    def read(self, path: str, begin: int = 0, end: int | None = None) -> memoryview:
        """The bytes from ``begin`` to ``end``: fewer where the object ends before.

        Raises:
            NotFoundError, AccessError, ReadError: It cannot be opened or read.
            DataError: It is something else than an object.
        """

    @abstractmethod
    def access(self, reading: Reading) -> Access:
        """How a data set reads these objects of the store, in this process."""
