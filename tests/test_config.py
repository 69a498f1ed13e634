"""Settings: frozen values, validated once, printed whole. Effects are tested where they act."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest

from torch_s3io import BufferPoolConfig, ConfigError, FileSystemConfig, RangeEngineConfig
from torch_s3io.datasets.sizing import auto_pool, check_pool

MIB = 1 << 20
CONFIGS = [BufferPoolConfig, RangeEngineConfig, FileSystemConfig]


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_config_is_frozen_keyword_only_and_compared_by_value(kind):
    config = kind()
    assert config == kind()
    assert hash(config) == hash(kind())
    for field in dataclasses.fields(kind):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(config, field.name, 1)
        assert f"{field.name}={getattr(config, field.name)!r}" in repr(config)
    with pytest.raises(TypeError):
        kind(1)
    with pytest.raises(TypeError):
        kind(no_such_setting=1)


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_config_survives_pickling_copying_and_replacing(kind):
    config = kind()
    assert pickle.loads(pickle.dumps(config)) == config
    assert copy.deepcopy(config) == config
    assert dataclasses.replace(config) == config


def test_the_default_file_system_config_has_no_pool():
    config = FileSystemConfig()
    assert config.direct_io == "auto"
    assert config.buffer_pool is None
    assert config.enable_range_engine


def test_direct_io_is_a_field_and_a_constructor():
    config = FileSystemConfig.direct_io()
    assert isinstance(config, FileSystemConfig)
    assert config.direct_io == "require"
    assert config.buffer_pool == BufferPoolConfig(capacity=32, buffer_size=64 * MIB, alignment=4096)
    assert FileSystemConfig(direct_io="off").direct_io == "off"
    assert dataclasses.replace(config, direct_io="auto").direct_io == "auto"


def test_high_performance_has_a_pool_and_larger_ranges():
    config = FileSystemConfig.high_performance()
    assert config.direct_io == "auto"
    assert config.buffer_pool == BufferPoolConfig()
    assert config.range_engine.chunk_size > RangeEngineConfig().chunk_size
    assert config.range_engine.max_concurrent_ranges > RangeEngineConfig().max_concurrent_ranges


def test_the_defaults_are_those_of_the_core():
    assert FileSystemConfig._ready_made("default") == FileSystemConfig()
    with pytest.raises(ConfigError, match="slow"):
        FileSystemConfig._ready_made("slow")


def test_total_bytes_is_what_the_whole_pool_takes():
    assert BufferPoolConfig(capacity=3, buffer_size=5).total_bytes == 15


@pytest.mark.parametrize(
    ("kind", "setting", "value"),
    [
        (BufferPoolConfig, "capacity", 0),
        (BufferPoolConfig, "capacity", -1),
        (BufferPoolConfig, "capacity", 1.5),
        (BufferPoolConfig, "capacity", True),
        (BufferPoolConfig, "capacity", "32"),
        (BufferPoolConfig, "buffer_size", 0),
        (BufferPoolConfig, "buffer_size", 1 << 62),
        (BufferPoolConfig, "alignment", 0),
        (BufferPoolConfig, "alignment", 3),
        (BufferPoolConfig, "alignment", 4 * MIB),
        (RangeEngineConfig, "chunk_size", 100),
        (RangeEngineConfig, "chunk_size", None),
        (RangeEngineConfig, "max_concurrent_ranges", 0),
        (RangeEngineConfig, "min_split_size", -1),
        (RangeEngineConfig, "range_timeout", 0),
        (RangeEngineConfig, "range_timeout", -1.0),
        (RangeEngineConfig, "range_timeout", float("nan")),
        (RangeEngineConfig, "range_timeout", "30"),
        (FileSystemConfig, "direct_io", "always"),
        (FileSystemConfig, "direct_io", None),
        (FileSystemConfig, "alignment", 0),
        (FileSystemConfig, "alignment", 513),
        (FileSystemConfig, "min_io_size", -1),
        (FileSystemConfig, "sync_writes", "no"),
        (FileSystemConfig, "enable_range_engine", 2),
        (FileSystemConfig, "range_engine", None),
        (FileSystemConfig, "buffer_pool", (32, 4096)),
    ],
)
def test_nonsense_is_refused_by_the_name_of_the_setting(kind, setting, value):
    with pytest.raises(ConfigError, match=setting):
        kind(**{setting: value})


def test_an_automatic_pool_holds_whole_batches_within_its_bounds():
    available = 64 << 30
    small = auto_pool(4096, 512, 1, available, available)
    assert (small.capacity, small.buffer_size) == (64, 4096)
    medium = auto_pool(1 * MIB, 512, 1, available, available)
    assert (medium.capacity, medium.buffer_size) == (8, 1 * MIB)
    large = auto_pool(512 * MIB, 4096, 1, available, available)
    assert (large.capacity, large.buffer_size) == (6, 512 * MIB)
    assert auto_pool(1000, 65536, 1, available, available).alignment == 65536


def test_an_automatic_pool_is_divided_over_the_workers_and_never_too_small_to_work():
    assert auto_pool(512 * MIB, 4096, 4, 64 << 30, 64 << 30).capacity == 3
    assert auto_pool(512 * MIB, 4096, 1, 2 << 30, 2 << 30).capacity == 3
    # Where buffers may be smaller, they are before they are fewer.
    few = auto_pool(2 << 30, 4096, 1, 64 << 30, 64 << 30, 100 * MIB)
    assert (few.capacity, few.buffer_size) == (3, (4 << 30) // 3)
    assert auto_pool(2 << 30, 4096, 1, 1 << 30, 1 << 30, 100 * MIB).buffer_size == (1 << 29) // 3
    assert auto_pool(2 << 30, 4096, 4, 1 << 30, 2 << 30, 100 * MIB).buffer_size == 100 * MIB


def test_a_pool_beyond_the_memory_is_refused_with_the_numbers():
    with pytest.raises(ConfigError, match=r"1048576 bytes.*6291456 bytes.*6000000 bytes"):
        auto_pool(1 * MIB, 4096, 2, 1 << 40, 6_000_000)
    check_pool(BufferPoolConfig(capacity=2, buffer_size=1 * MIB), 2, 4 * MIB)
    with pytest.raises(
        ConfigError, match=r"2 buffers of 1048576 bytes.*2 processes.*4194304 bytes"
    ):
        check_pool(BufferPoolConfig(capacity=2, buffer_size=1 * MIB), 2, 4 * MIB - 1)
