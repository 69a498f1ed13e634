"""docs/configuration.md says what the code has: every option, with its default."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import inspect
import re
import runpy
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import torch_s3io
from torch_s3io import (
    BufferPoolConfig,
    DataLoader,
    DevicePrefetcher,
    FileStore,
    FileSystemConfig,
    Mix,
    RangeEngineConfig,
    RecordDataset,
    RecordWriter,
    S3Config,
    SampleDataset,
    SampleWriter,
    TokenDataset,
)
from torch_s3io.bench.config import BenchConfig, DataConfig, LoaderConfig, StorageConfig
from torch_s3io.bench.result import METRICS
from torch_s3io.datasets.options import PLAN_OPTIONS, DatasetOptions, Options
from torch_s3io.datasets.zipped import _OWN

ROOT = Path(__file__).parents[1]
LIKE_RECORD_DATASET = (
    RecordDataset.from_npy,
    RecordDataset.from_tokens,
    SampleDataset,
    SampleDataset.from_tar,
    TokenDataset,
)
WITH_WORKERS = {"held_out_tensors", "refused_workers"}  # statistics that only then exist
REQUIRED, BELOW = "required", "see below"

CLASSES = {
    "RecordDataset": RecordDataset,
    "RecordDataset.from_npy": RecordDataset.from_npy,
    "RecordDataset.from_tokens": RecordDataset.from_tokens,
    "SampleDataset": SampleDataset,
    "TokenDataset": TokenDataset,
    "SampleDataset.from_tar": SampleDataset.from_tar,
    "Mix": Mix,
    "DataLoader": DataLoader,
    "DevicePrefetcher": DevicePrefetcher,
    "FileStore": FileStore,
    "RecordWriter": RecordWriter,
    "SampleWriter": SampleWriter,
    "FileSystemConfig": FileSystemConfig,
    "RangeEngineConfig": RangeEngineConfig,
    "S3Config": S3Config,
    "BufferPoolConfig": BufferPoolConfig,
    "BenchConfig": BenchConfig,
    "data": DataConfig,
    "storage": StorageConfig,
    "loader": LoaderConfig,
}


def tables() -> dict[str, list[list[str]]]:
    """Rows of the table below each heading, without its head."""
    rows: dict[str, list[list[str]]] = {}
    heading = ""
    for line in (ROOT / "docs" / "configuration.md").read_text().splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("| `"):
            cells = [cell.strip() for cell in line.split("|")[1:-1]]
            rows.setdefault(heading, []).extend(_one_each(cells))
    return rows


def _one_each(cells: list[str]) -> list[list[str]]:
    """A row that says "`rank`, `world_size`" is a row for each."""
    names, defaults = (cell.split(", ") for cell in cells[:2])
    if len(names) == 1 or len(names) != len(defaults):
        return [cells]
    return [[name, default, *cells[2:]] for name, default in zip(names, defaults, strict=True)]


def options_of(kind: Callable[..., Any]) -> dict[str, str]:
    """Name and default of every option, as the page writes them; without those that are told of
    RecordDataset."""
    found = {}
    for parameter in inspect.signature(kind).parameters.values():
        if parameter.name.startswith("_") or parameter.kind is parameter.VAR_KEYWORD:
            continue
        if kind in LIKE_RECORD_DATASET and parameter.name in Options.__annotations__:
            continue
        required = parameter.default is parameter.empty
        found[parameter.name] = REQUIRED if required else written(parameter.default)
    if dataclasses.is_dataclass(kind):
        values = {field.name: getattr(kind(), field.name) for field in dataclasses.fields(kind)}
        assert set(values) == set(found)
        found = {name: written(value) for name, value in values.items()}
    return found


def written(value: object) -> str:
    """As a Python programmer writes it; a dataclass with what differs from its defaults."""
    if isinstance(value, str):
        return f'"{value}"'
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        if type(value) in (DataConfig, StorageConfig, LoaderConfig):
            return BELOW
        parts = [
            f"{field.name}={getattr(value, field.name)!r}"
            for field in dataclasses.fields(value)
            if getattr(value, field.name) != getattr(type(value)(), field.name)
        ]
        return f"{type(value).__name__}({', '.join(parts)})"
    return repr(value)


@pytest.mark.parametrize("heading", CLASSES)
def test_every_option_is_on_the_page_with_its_default(heading):
    rows = tables()[heading]
    documented = {row[0].strip("`"): row[1].strip("`") for row in rows}
    assert documented == options_of(CLASSES[heading])
    assert len(documented) == len(rows)
    assert all(row[-1] for row in rows), "an option without a meaning"


def test_the_ready_made_file_systems_are_on_the_page():
    rows = tables()["FileSystemConfig"]
    for column, config in (
        (2, FileSystemConfig.direct_io()),
        (3, FileSystemConfig.high_performance()),
    ):
        documented = {row[0].strip("`"): row[column].strip("`") for row in rows}
        found = {
            field.name: written(getattr(config, field.name)) for field in dataclasses.fields(config)
        }
        assert documented == found


def test_every_option_of_a_zip_is_on_the_page():
    documented = [name for row in tables()["Zip"] for name in re.findall(r"`(\w+)`", row[0])]
    assert sorted(documented) == sorted([*PLAN_OPTIONS, *_OWN])


def test_type_checkers_see_the_options_that_there_are():
    fields = [field for field in dataclasses.fields(DatasetOptions) if field.repr]
    assert Options.__annotations__.keys() == {field.name for field in fields}
    for field in fields:
        assert Options.__annotations__[field.name].__forward_arg__ == field.type, field.name


@pytest.mark.parametrize(
    "kind",
    [
        RecordDataset,
        RecordDataset.from_npy,
        RecordDataset.from_tokens,
        SampleDataset,
        TokenDataset,
    ],
)
def test_help_shows_every_option_of_a_data_set_with_its_default(kind):
    parameters = inspect.signature(kind).parameters
    for field in dataclasses.fields(DatasetOptions):
        if field.repr:
            assert parameters[field.name].default == field.default
    assert not any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    made = kind.__init__ if isinstance(kind, type) else kind
    assert typing.get_type_hints(made)["options"]


def test_help_shows_which_options_can_be_changed():
    parameters = inspect.signature(RecordDataset.with_options).parameters
    assert {one.default for name, one in parameters.items() if name != "self"} == {...}
    assert set(parameters) - {"self"} == set(Options.__annotations__)


def test_the_docstrings_name_every_option():
    for kind in (RecordDataset, DataLoader, DevicePrefetcher, FileStore, *CLASSES.values()):
        for name in options_of(kind):
            assert re.search(rf"^\s+(\w+, )*{name}(, \w+)*: ", kind.__doc__, re.M), (kind, name)


def test_variables_of_the_build_are_those_of_the_page():
    documented = {
        name for row in tables()["Building"] for name in re.findall(r"`([A-Z_0-9]+)", row[0])
    }
    text = (ROOT / "scripts" / "compile_cpp.py").read_text()
    read = set(re.findall(r'(?:environ\.get|is_on)\("(\w+)"', text))
    assert documented == read | {"PYTHON"}
    package = "".join(path.read_text() for path in (ROOT / "torch_s3io").rglob("*.py"))
    assert not re.findall(r'environ\.get\("TORCH_S3IO', package)


def test_the_version_is_the_same_everywhere():
    version = torch_s3io.__version__
    assert torch_s3io._C.__version__ == version
    assert importlib.metadata.version("torch-s3io") == version
    assert f"__version__: str = '{version}'" in (ROOT / "torch_s3io" / "_C.pyi").read_text()
    changes = (ROOT / "CHANGELOG.md").read_text()
    newest = re.search(r"^## \[(.+?)\]", changes, re.M)
    assert newest
    assert newest[1] in ("Unreleased", version)
    if "dev" not in version:
        notes = ROOT / "docs" / f"release-{version}.md"
        assert notes.read_text().startswith(f"# torch_s3io {version}\n")
        assert f"({notes.relative_to(ROOT)})" in changes
    results = (ROOT / "benchmarks" / "README.md").read_text()
    measured = set(re.findall(r"\btorch[_-]s3io (\d[\w.]*\d)", results))
    released = set(re.findall(r"^## \[([\d.]+)\]", changes, re.M))
    assert measured
    assert measured <= released | {version.partition(".dev")[0]}


def test_the_pinned_torch_is_the_same_everywhere():
    pins = {
        "README.md": r"torch==([\d.]+\d)",
        "CONTRIBUTING.md": r"torch==([\d.]+\d)",
        "setup.py": r"torch==([\d.]+\d)",
        "scripts/setup.sh": r"^TORCH_VERSION=([\d.]+)$",
        f"docs/release-{torch_s3io.__version__}.md": r"PyTorch (\d+\.\d+\.\d+)",
        # of the main machine; that with the GPU came with another one
        "benchmarks/README.md": r"(?:^|torch-s3io [\d.]+, )torch (\d+\.\d+\.\d+)",
    }
    found = {
        name: re.findall(pattern, (ROOT / name).read_text(), re.M) for name, pattern in pins.items()
    }
    assert all(found.values()), found
    assert len({version for versions in found.values() for version in versions}) == 1, found


def test_every_pytorch_that_is_claimed_is_one_that_make_compat_tries():
    compat = runpy.run_path(str(ROOT / "scripts" / "compat.py"))
    tried = [tuple(map(int, version.split("."))) for version in compat["VERSIONS"]]
    first, last = tried[0][1], tried[-1][1]
    assert sorted({version[:2] for version in tried}) == [(2, n) for n in range(first, last + 1)]
    assert f"TORCH_VERSION={compat['VERSIONS'][-1]}\n" in (ROOT / "scripts/setup.sh").read_text()
    assert compat["TESTED"] <= set(compat["VERSIONS"])
    assert tried[0][2] == 0, "the very first one is claimed, too"
    claims = {
        "pyproject.toml": rf'"torch>=2\.{first}"',
        "README.md": rf"\bPyTorch >= 2\.{first}\b",
        "scripts/setup.sh": rf"< \(2, {first}\)",
        "docs/configuration.md": rf"PyTorch 2\.{first} to 2\.{last}\b",
    }
    for name, claim in claims.items():
        assert re.search(claim, (ROOT / name).read_text()), name
    page = (ROOT / "docs" / "configuration.md").read_text()
    for version in compat["TESTED"]:
        assert version in page


def test_the_tuning_page_names_statistics_that_exist(tmp_path):
    (tmp_path / "x.bin").write_bytes(bytes(4096))
    dataset = RecordDataset(tmp_path / "x.bin", dtype="u1", shape=16)
    loader = DataLoader(dataset)
    list(loader)
    known = set(loader.stats()) | WITH_WORKERS
    text = (ROOT / "docs" / "tuning.md").read_text()
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \|", text, re.M)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    named |= {"wait_share", "gb_per_s"}
    assert len(named) > 15
    assert named <= known, named - known
    assert set(RecordDataset.stats.__doc__.split("``")) >= WITH_WORKERS


def test_the_tuning_page_explains_every_column_of_the_benchmarks():
    text = (ROOT / "docs" / "tuning.md").read_text()
    section = text.partition("| column | meaning |")[2].partition("\n\n")[0]
    for metric in METRICS:
        assert re.search(rf"\b{re.escape(metric.title.removesuffix(' ms'))}", section), metric.title
