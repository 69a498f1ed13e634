"""Each name that is no public API of torch, or of a framework, is where we look for it; without the
names records are read as well. What the names are for is tested where that is."""

from __future__ import annotations

import ast
import gc
import importlib
import inspect
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from lazily import is_there
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset, random_split

import torch_s3io as s3io
from torch_s3io import torch_internals
from torch_s3io.torch_internals.lost_tensors import lose_tensor

FOLDER = Path(torch_internals.__file__).parent
PACKAGE = FOLDER.parent
MODULES = {path.stem: path for path in sorted(FOLDER.glob("*.py")) if path.stem != "__init__"}
OURS = {"frames"}  # which reaches into nothing by itself
TABLE = torch_internals.__doc__ or ""
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def is_off(workaround: str) -> str:
    return f"{workaround} is off with this version: see {FOLDER.name}/__init__.py, and mend it"


def module_of(name: str) -> Any:
    """Skips the test where a framework is not installed, or does not work with this torch."""
    package = name.split(".")[0]
    if not is_there(package):
        pytest.skip(f"NEEDS {package.upper()}: names of its are not looked for")
    return importlib.import_module(name)


@pytest.fixture(scope="module", autouse=True)
def _frameworks() -> None:
    """What they make once and keep is no leak of the first test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _, module, _ in names_looked_for():
            if is_there(module.split(".")[0]):
                importlib.import_module(module)
    gc.collect()
    gc.freeze()


# ---- Names.


def names_looked_for() -> list[tuple[str, str, str]]:
    """Workaround, module, name: of all calls that look for one."""
    found = []
    for workaround, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Name) and called.id in ("find_name", "codes_of"):
                texts = [one.value for one in node.args if isinstance(one, ast.Constant)]
                found += [(workaround, str(texts[0]), str(name)) for name in texts[1:]]
    return found


@pytest.mark.parametrize(("workaround", "module", "name"), names_looked_for())
def test_a_name_is_where_we_look_for_it(workaround, module, name):
    assert hasattr(module_of(module), name), f"{module}.{name} is gone: {is_off(workaround)}"


def test_the_names_are_found_in_the_source():
    assert ("pinning", "torch.utils.data._utils.pin_memory", "_pin_memory_loop") in (
        names_looked_for()
    )
    assert len(names_looked_for()) > 15


# ---- Variables of functions.

FETCH = "torch.utils.data._utils.fetch"
LOADER = "torch.utils.data.dataloader"
VARIABLES = {
    "_MultiProcessingDataLoaderIter": ("worker_starts", LOADER, "__init__", {"self", "loader"}),
    "_IterableDatasetFetcher": ("worker_reads", FETCH, "__init__", {"self"}),
    "DataLoader": ("map_style", LOADER, "__init__", {"shuffle", "sampler", "batch_sampler"}),
    "_FitLoop": ("lightning", "lightning.pytorch.loops.fit_loop", "advance", {"self"}),
    "SkipDataLoader": ("accelerate", "accelerate.data_loader", "__iter__", {"self"}),
    "IterableDatasetShard": ("accelerate", "accelerate.data_loader", "__iter__", {"self"}),
}


@pytest.mark.parametrize("kind", VARIABLES)
def test_a_function_has_the_variables_that_we_read(kind):
    workaround, module, function, variables = VARIABLES[kind]
    code = getattr(getattr(module_of(module), kind), function).__code__
    missing = variables - set(code.co_varnames + code.co_cellvars)
    assert not missing, f"{kind}.{function} has no {missing}: {is_off(workaround)}"


@pytest.mark.parametrize(
    "module", ["torch.utils.data._utils.worker", "torchdata.stateful_dataloader.worker"]
)
def test_a_worker_knows_what_it_calls_at_first(module):
    variables = inspect.signature(module_of(module)._worker_loop).parameters
    assert "init_fn" in variables, is_off("worker_reads")


def test_the_trainer_counts_its_epochs():
    methods = vars(module_of("transformers.trainer").Trainer).values()
    codes = [method.__code__ for method in methods if hasattr(method, "__code__")]
    assert any("epoch" in code.co_varnames for code in codes), is_off("accelerate")


# ---- Attributes.


class Numbers(IterableDataset[int]):
    def __iter__(self) -> Any:
        return iter(range(4))


def attributes_missing(one: Any, *names: str) -> list[str]:
    return [name for name in names if not hasattr(one, name)]


@pytest.mark.parametrize("persistent", [False, True])
def test_an_iterator_has_the_workers_and_queues_that_we_end(persistent):
    loader = DataLoader(Numbers(), num_workers=1, persistent_workers=persistent)
    assert hasattr(loader, "_iterator"), is_off("loader_workers")
    batches = iter(loader)
    assert (loader._iterator is batches) is persistent, is_off("loader_workers")
    names = "_workers", "_index_queues", "_data_queue", "_shutdown_workers", "_process_data"
    assert not attributes_missing(batches, *names), is_off("loader_workers, lost_tensors")
    queues = [*batches._index_queues, batches._data_queue]
    assert all(hasattr(queue, "_notempty") for queue in queues), is_off("loader_workers")
    assert list(batches) == [0, 1, 2, 3]
    batches._shutdown_workers()
    assert not any(worker.is_alive() for worker in batches._workers)


def test_an_iterator_in_this_process_has_the_fetcher_that_we_ask():
    batches: Any = iter(DataLoader(Numbers(), batch_size=None))
    fetcher = getattr(batches, "_dataset_fetcher", None)
    names = "dataset", "dataset_iter", "auto_collation", "collate_fn"
    assert fetcher is not None, is_off("loader_workers")
    assert not attributes_missing(fetcher, *names), is_off("loader_workers, collation")


def test_torchdatas_iterator_processes_what_it_receives():
    module = module_of("torchdata.stateful_dataloader.stateful_dataloader")
    kind = module._StatefulMultiProcessingDataLoaderIter
    assert hasattr(kind, "_process_data"), is_off("lost_tensors")


def test_torch_raises_what_its_wrapper_holds():
    wrapper = module_of("torch._utils").ExceptionWrapper
    try:
        raise s3io.DataError("lost")
    except s3io.DataError:
        wrapped = wrapper(where="here")
    with pytest.raises(s3io.DataError, match="lost"):
        wrapped.reraise()


@pytest.mark.parametrize("module", ["accelerate.data_loader", "transformers.trainer_pt_utils"])
def test_what_cuts_shares_knows_its_batch_size(module):
    shard = module_of(module).IterableDatasetShard(Numbers(), batch_size=2)
    assert shard.batch_size == 2, is_off("accelerate")


def test_the_collator_that_leaves_out_columns_has_the_one_within():
    collator = module_of("transformers.trainer_utils").RemoveColumnsCollator(len, ["x"])
    assert collator.data_collator is len, is_off("collation")


def test_lightnings_loop_says_where_it_is():
    lightning = module_of("lightning.pytorch")
    trainer = lightning.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    loop = trainer.fit_loop
    names = "_combined_loader", "_combined_loader_states_to_load"
    assert not attributes_missing(loop, *names), is_off("lightning")
    assert loop.epoch_progress.current.processed == 0, is_off("lightning")
    assert loop.epoch_loop.batch_progress.current.ready == 0, is_off("lightning")
    assert hasattr(trainer._checkpoint_connector, "_hpc_resume_path"), is_off("lightning")


# ---- Who calls.


class Asked(IterableDataset[int]):
    """Notes who asks for its class and its length."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def _note(self, frame: FrameType | None) -> None:
        while frame is not None:
            self.asked.append(frame.f_code.co_qualname if sys.version_info >= (3, 11) else "")
            frame = frame.f_back

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        self._note(sys._getframe(1))
        return Asked

    def __len__(self) -> int:
        self._note(sys._getframe(1))
        return 4

    def __iter__(self) -> Any:
        return iter(range(4))


ASKING: dict[str, Callable[[Asked], Any]] = {
    "DataLoader.__init__": lambda dataset: DataLoader(dataset),
    "ConcatDataset.__init__": lambda dataset: ConcatDataset([dataset]),
    "DataLoader.__len__": lambda dataset: len(DataLoader(dataset)),
    "random_split": lambda dataset: random_split(dataset, [2, 2]),
}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="NEEDS Python 3.11: names of functions")
@pytest.mark.parametrize("function", ASKING)
def test_torch_asks_a_data_set_where_we_look_for_it(function):
    dataset = Asked()
    try:
        ASKING[function](dataset)
    except AssertionError:
        assert function == "ConcatDataset.__init__"  # it takes no iterable data set
    assert function in dataset.asked, is_off("map_style")


# ---- Where nothing is known.


@pytest.fixture
def unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if torch had none of the names."""
    for workaround in MODULES:
        module = importlib.import_module(f"{torch_internals.__name__}.{workaround}")
        if hasattr(module, "find_name"):
            monkeypatch.setattr(module, "find_name", lambda *_: None)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("loader", [s3io.DataLoader, DataLoader])
def test_records_are_read_without_the_names(tmp_path, unknown, loader, workers):
    np.arange(100).tofile(tmp_path / "a.bin")
    dataset = s3io.RecordDataset(tmp_path / "a.bin", dtype=np.int64, batch_size=10, shuffle=True)
    batches = loader(dataset, batch_size=None, num_workers=workers)
    for epoch in range(2):
        dataset.set_epoch(epoch)
        assert sorted(torch.cat(list(batches)).flatten().tolist()) == list(range(100))


def test_a_lost_tensor_raises_when_it_is_used_without_the_names(unknown):
    lost = lose_tensor("its bytes are gone", s3io.OutOfMemoryError)
    with pytest.raises(s3io.OutOfMemoryError, match="its bytes are gone"):
        lost.sum()
    with pytest.raises(s3io.OutOfMemoryError, match="its bytes are gone"):
        torch.stack([torch.ones(1), lost])


# ---- The folder.


def test_the_table_names_every_workaround():
    assert set(re.findall(r"^``(\w+)``  ", TABLE, re.MULTILINE)) == set(MODULES) - OURS


def issues_cited() -> dict[str, set[str]]:
    """Issue or pull request, as in pytorch/pytorch#1, and the modules that name it."""
    cited: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for one in re.findall(r"\b([\w.-]+/[\w.-]+#\d+)", path.read_text()):
            cited.setdefault(one, set()).add(path.relative_to(PACKAGE).as_posix())
    return cited


def test_the_table_and_the_modules_name_the_same_issues():
    urls = re.findall(r"https://github\.com/([\w.-]+/[\w.-]+)/(?:issues|pull)/(\d+)", TABLE)
    assert {f"{repository}#{number}" for repository, number in urls} == set(issues_cited())


@pytest.mark.parametrize("workaround", sorted(set(MODULES) - OURS))
def test_a_workaround_names_its_issue_or_says_that_none_is_known(workaround):
    text = MODULES[workaround].read_text()
    assert re.search(r"Issue: [\w.-]+/[\w.-]+#\d+|[Nn]o issue known", text)


# Of frames, and of torch, what only this folder may touch.
PRIVATE = re.compile(
    r"\.f_locals\b|\.f_code\b|from torch[\w.]*\._|\btorch\.(?:\w+\.)*_[a-z]|_utils\b"
    r"|\._(?:iterator|workers|get_iterator|shutdown_workers|dataset_fetcher|index_queues)\b"
)


def test_the_check_sees_a_private_name():
    for line in ("from torch._utils import x", "torch.utils.data._utils.fetch", "loader._iterator"):
        assert PRIVATE.search(line), line
    for line in ("frame.f_locals['self']", "torch.distributed.x._y", "a._get_iterator()"):
        assert PRIVATE.search(line), line
    for line in ("torch.nn.functional.relu", "self._iterators", "torch_s3io._C.x", "_workers = 1"):
        assert not PRIVATE.search(line), line


def test_nothing_else_reaches_behind_the_public_api():
    others = [path for path in PACKAGE.rglob("*.py") if FOLDER not in path.parents]
    found = {path.name: PRIVATE.findall(path.read_text()) for path in others}
    assert {name: uses for name, uses in found.items() if uses} == {}
