"""The options that all kinds of data set have: one list, with what each is for."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypedDict, TypeVar

from ..config import (
    BufferPoolConfig,
    DirectMode,
    EngineKind,
    check_bool,
    check_choice,
    check_int,
    check_seconds,
)
from ..errors import ConfigError
from ..keywords import keywords_of, refuse_unknown
from ..order.record_order import Shuffle, check_order
from ..processes.ranks import check_ranks
from ..store.stores import StoreSetting, configure_store

PoolSetting = Literal["auto"] | BufferPoolConfig | None

_MOST_DEPTH = 4096
_INTEGERS = ("batch_size", "seed", "block_records", "window_blocks", "rank", "world_size", "depth")

_ALONE = ("batch",)
_WITH_POSITION = ("batch", "index", "epoch")


def _check_transform(transform: Any, passes_position: bool) -> None:
    """Raises ConfigError for what cannot be called as it would be."""
    if not callable(transform):
        raise ConfigError(f"transform must be callable, not {transform!r}")
    given = _WITH_POSITION if passes_position else _ALONE
    if _takes(transform, given):
        return
    text = f"transform is called with ({', '.join(given)}), which it does not take"
    if not passes_position and _takes(transform, _WITH_POSITION):
        text += "; pass_position=True calls it with (batch, index, epoch)"
    elif passes_position and _takes(transform, _ALONE):
        text += "; without pass_position=True it is called with the batch alone"
    else:
        text += f": its arguments are {_signature(transform)}"
    raise ConfigError(text)


def _takes(function: Callable[..., Any], arguments: tuple[str, ...]) -> bool:
    """Whether it can be called so, as far as its signature tells."""
    try:
        signature = _signature(function)
    except (TypeError, ValueError):  # of a built-in function
        return True
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """Its own, which may be another one than that of a function that it wraps."""
    return inspect.signature(function, follow_wrapped=False)


class Options(TypedDict, total=False):
    """The users' part of DatasetOptions as keyword arguments, for type checkers."""

    batch_size: int | None
    shuffle: Shuffle
    seed: int
    block_records: int | None
    window_blocks: int
    rank: int | None
    world_size: int | None
    shard_by_worker: bool | None
    drop_last: bool
    pad_last: bool
    direct: DirectMode
    engine: EngineKind
    pool: PoolSetting
    transform: Callable[..., Any] | None
    pass_position: bool
    return_index: bool
    depth: int
    read_timeout_s: float
    strict_identity: bool
    rank_timeout_s: float


# What says which records come when, and where: a Zip reads all of its parts by it.
_OF_PLAN = {"is_of_plan": True}


@dataclass(frozen=True, kw_only=True)
class DatasetOptions:
    """Documented in RecordDataset, with their defaults here."""

    batch_size: int | None = field(default=64, metadata=_OF_PLAN)
    shuffle: Shuffle = field(default=False, metadata=_OF_PLAN)
    seed: int = field(default=0, metadata=_OF_PLAN)
    block_records: int | None = field(default=None, metadata=_OF_PLAN)
    window_blocks: int = field(default=1, metadata=_OF_PLAN)
    rank: int | None = field(default=None, metadata=_OF_PLAN)
    world_size: int | None = field(default=None, metadata=_OF_PLAN)
    shard_by_worker: bool | None = field(default=None, metadata=_OF_PLAN)
    drop_last: bool = field(default=False, metadata=_OF_PLAN)
    pad_last: bool = field(default=False, metadata=_OF_PLAN)
    direct: DirectMode = "auto"
    engine: EngineKind = "auto"
    pool: PoolSetting = "auto"
    transform: Callable[..., Any] | None = None
    pass_position: bool = False
    return_index: bool = False
    depth: int = 32
    read_timeout_s: float = 60.0
    strict_identity: bool = field(default=False, metadata=_OF_PLAN)
    rank_timeout_s: float = field(default=600.0, metadata=_OF_PLAN)
    # Not the user's: see ViewedDataset._with.
    reads_on: bool = field(default=True, repr=False)
    keeps_cached: bool = field(default=True, repr=False)
    faults: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.batch_size is not None:
            check_int("batch_size", self.batch_size, 1)
        for name in ("drop_last", "pad_last", "pass_position", "return_index", "strict_identity"):
            check_bool(name, getattr(self, name))
        if self.shard_by_worker is not None:
            check_bool("shard_by_worker", self.shard_by_worker)
        if self.drop_last and self.pad_last:
            raise ConfigError(
                "drop_last and pad_last: give one, as a last step is left out or filled up"
            )
        if self.pass_position and self.transform is None:
            raise ConfigError("pass_position=True needs a transform= to pass it to")
        check_order(self.shuffle, self.seed, self.block_records, self.window_blocks)
        check_ranks(self.rank, self.world_size)
        check_choice("direct", self.direct, DirectMode)
        check_choice("engine", self.engine, EngineKind)
        check_int("depth", self.depth, 1)
        if self.depth > _MOST_DEPTH:
            raise ConfigError(f"depth must be at most {_MOST_DEPTH}, not {self.depth}")
        check_seconds("read_timeout_s", self.read_timeout_s)
        check_seconds("rank_timeout_s", self.rank_timeout_s)
        if self.pool is not None and not isinstance(self.pool, BufferPoolConfig | str):
            raise ConfigError(f"pool must be 'auto', a BufferPoolConfig or None, not {self.pool!r}")
        if isinstance(self.pool, str) and self.pool != "auto":
            raise ConfigError(f"pool must be 'auto', a BufferPoolConfig or None, not {self.pool!r}")
        if self.transform is not None:
            _check_transform(self.transform, self.pass_position)
        # Those of numpy become plain ones, which states and digests are made of.
        for name in _INTEGERS:
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, operator.index(value))

    @property
    def with_record_numbers(self) -> bool:
        """Whether batches are read together with the numbers of their records."""
        return self.return_index or self.pass_position

    def only(self, names: Iterable[str]) -> dict[str, Any]:
        """Those of these names."""
        return {name: getattr(self, name) for name in names}

    def reading(self, paths: Any, store: StoreSetting, index: Any = None) -> DatasetOptions:
        """As ``store=`` of a data set of these paths says, whose ``index=`` may name another
        bucket: see configure_store.

        Raises:
            ConfigError: See there; or a FileStore says something else than ``direct`` and
                ``engine``.
        """
        files = configure_store(paths, store, index)
        if files is None:
            return self
        settings: dict[str, Any] = {"direct": files.config.direct_io, "engine": files.engine}
        for name, value in settings.items():
            if getattr(self, name) not in ("auto", value):
                raise ConfigError(
                    f"{name}={getattr(self, name)!r}: store= is a FileStore with {value!r}: leave "
                    "one out"
                )
        return replace(self, **settings)

    def changed(self, caller: Callable[..., Any], changes: Mapping[str, Any]) -> DatasetOptions:
        """The same but for ``changes``, which are further keyword arguments of ``caller``."""
        known = [*keywords_of(caller), *_USERS]  # some callers have them in their signatures
        refuse_unknown(caller.__name__, changes, list(dict.fromkeys(known)))
        return replace(self, **changes)


_USERS = {one.name: one for one in fields(DatasetOptions) if one.repr}
PLAN_OPTIONS = tuple(name for name, one in _USERS.items() if one.metadata.get("is_of_plan"))
ORDER_OPTIONS = ("shuffle", "block_records", "window_blocks")  # a Mix has none: its parts do

_Function = TypeVar("_Function", bound=Callable[..., Any])


def takes_options(function: _Function) -> _Function:
    """A decorator: what ``help()`` shows, and whatever asks for the signature, names each option in
    the place of ``**options``."""
    return _describe(function, lambda option: option.default)


def changes_options(function: _Function) -> _Function:
    """The same where what is left out stays as it is: its default is shown as ``...``."""
    return _describe(function, lambda _: ...)


def _describe(function: _Function, default_of: Callable[[Any], Any]) -> _Function:
    signature = inspect.signature(function)
    *own, last = signature.parameters.values()
    assert last.kind is inspect.Parameter.VAR_KEYWORD
    kind = inspect.Parameter.KEYWORD_ONLY
    named = [
        inspect.Parameter(name, kind, default=default_of(one), annotation=one.type)
        for name, one in _USERS.items()
    ]
    described: Any = function
    described.__signature__ = signature.replace(parameters=[*own, *named])
    return function
