"""The server of the benchmarks of object storage, and what it gives and takes by itself."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common
import numpy as np
from s3_bucket import NAME, RANGE_BYTES, Range

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from object_servers.certificate import make_certificate
from object_servers.fault_server import ACCESS_KEY, SECRET_KEY
from object_servers.seaweed import seaweed

HAS_WRK = shutil.which("wrk") is not None
_GET_CONNECTIONS = 64
# Few, and for longer: what has not ended when time is up is not counted.
_PUT_CONNECTIONS, _PUTS_FOR = 4, 4
_PUT_KEYS = 16  # written again and again


@contextlib.contextmanager
def server(*, tls: bool = False) -> Iterator[Any]:
    """A client of botocore's for a server with an empty bucket; it is gone in the end.

    The environment names it for all clients that look there: its address, keys, and whom to trust.
    """
    import botocore.session
    from botocore.config import Config

    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        certificate = make_certificate(folder) if tls else None
        endpoint = stack.enter_context(seaweed(certificate))
        variables = {
            "AWS_ENDPOINT_URL": endpoint, "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }  # fmt: skip
        if certificate is not None:
            names = ("AWS_CA_BUNDLE", "SSL_CERT_FILE", "TENSORSTORE_CA_BUNDLE")
            variables |= dict.fromkeys(names, str(certificate[0]))
        stack.enter_context(_environment(variables))
        # Over TLS it would send "aws-chunked", which the server then says of the object for good.
        config = Config(request_checksum_calculation="when_required")
        client = botocore.session.get_session().create_client("s3", config=config)
        client.create_bucket(Bucket=NAME)
        client.put_object(Bucket=NAME, Key="first", Body=b"1")  # the server makes room: a second
        yield client


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ |= variables
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


def gets_by_wrk(client: Any, ranges: list[Range], seconds: float) -> common.Sample:
    """Ranges in this order, over 64 connections, by signed addresses."""
    addresses = {key: _signed(client, "get_object", key) for key in {key for key, _, _ in ranges}}
    asked = [
        f'wrk.format("GET", "{addresses[key]}", {{["Range"] = "bytes={at}-{at + size - 1}"}})'
        for key, at, size in ranges
    ]
    found = _wrk(client, asked, seconds, _GET_CONNECTIONS)
    return {"gb_per_s": found["bytes"] / found["seconds"] / common.GB,
            "per_s": found["requests"] / found["seconds"]}  # fmt: skip


def puts_by_wrk(client: Any, seconds: float) -> common.Sample:
    """Objects of 8 MiB, for four times as long."""
    with tempfile.NamedTemporaryFile() as body:
        body.write(np.random.default_rng(2).bytes(RANGE_BYTES))
        body.flush()
        addresses = [_signed(client, "put_object", f"put/{one}") for one in range(_PUT_KEYS)]
        read = f'local body = io.open("{body.name}", "rb"):read("*a")'
        asked = [f'wrk.format("PUT", "{address}", nil, body)' for address in addresses]
        found = _wrk(client, asked, seconds * _PUTS_FOR, _PUT_CONNECTIONS, read)
    per_s = found["requests"] / found["seconds"]
    return {"gb_per_s": per_s * RANGE_BYTES / common.GB, "per_s": per_s}


def _signed(client: Any, method: str, key: str) -> str:
    address = client.generate_presigned_url(method, {"Bucket": NAME, "Key": key}, 3600)
    return str(address).removeprefix(client.meta.endpoint_url)


def _wrk(
    client: Any, asked: list[str], seconds: float, connections: int, before: str = ""
) -> dict[str, float]:
    script = "\n".join([
        before, "local asked, at = {}, 0",
        "init = function()", *(f"  asked[#asked + 1] = {one}" for one in asked), "end",
        "request = function()", "  at = at % #asked + 1", "  return asked[at]", "end",
        "done = function(summary, latency, requests)",
        '  io.write(string.format("FOUND %d %d %f %d\\n", summary.requests, summary.bytes,'
        " summary.duration / 1e6, summary.errors.status))", "end",
    ])  # fmt: skip
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        options = ["-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s"]
        done = subprocess.run(
            ["wrk", *options, "-s", file.name, client.meta.endpoint_url],
            capture_output=True, text=True, check=True, timeout=120,
        )  # fmt: skip
    numbers = re.search(r"FOUND (\d+) (\d+) ([\d.]+) (\d+)", done.stdout)
    assert numbers is not None, done.stdout
    requests, total, elapsed_s, failed = map(float, numbers.groups())
    assert failed == 0, done.stdout
    return {"requests": requests, "bytes": total, "seconds": elapsed_s}
