"""Results of benchmarks, as ``bench compare`` reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from engine.checks import naming

from torch_s3io.bench.compare import compare
from torch_s3io.bench.result import read as read_result

TOKENS = [
    *(b'"config"', b'"epochs"', b'"gb_per_s"', b'"samples_per_s"', b'"latency_p99_s"', b'"stats"'),
    *(b"1e400", b"-1e400", b"NaN", b"Infinity", b'"1e5"', b'"inf"', b"true", b"null", b"{}", b"[]"),
    *(b"{", b"}", b"[", b"]", b",", b":", b"1e308", b"-1e308", b"1e-320", b"\\ud800", b"\\u202e"),
]


def make(folder: Path) -> Callable[[bytes], None]:
    path, other = folder / "result.json", folder / "other.json"
    other.write_text('{"config": {"name": "x"}, "epochs": [{"gb_per_s": 2.5, "wall_s": 1}]}')
    usual = read_result(other)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        with naming(path):
            result = read_result(path)
        for pair in ((result, usual), (usual, result), (result, result)):
            compare(*pair, ("one", "two")).encode()

    return read
