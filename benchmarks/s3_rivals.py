"""Clients of S3 that read the same objects; each in its usual way, with checks as it makes them.

A contestant is a function of a ``Bucket`` and of how many requests it may have in flight. It
returns a function that reads an epoch and says how many pieces, and how many bytes, came.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from s3_bucket import LARGE_BYTES, NAME, RANGE_BYTES, RECORD_BYTES, Bucket
from torch.utils.data import DataLoader

BATCH = 64

Read = tuple[int, int]  # pieces, bytes
Epoch = Callable[[], Read]
ReadRange = Callable[[str, int, int], int]  # key, offset, length -> bytes that came


def _lengths(pieces: Iterable[Any]) -> Read:
    lengths = [len(piece) for piece in pieces]
    return len(lengths), sum(lengths)


def _keys() -> dict[str, str]:
    return {"key": os.environ["AWS_ACCESS_KEY_ID"], "secret": os.environ["AWS_SECRET_ACCESS_KEY"]}


# Ranges of 8 MiB ----------------------------------------------------------------------------------


def _by_threads(make: Callable[[Bucket], ReadRange]) -> Callable[[Bucket, int], Epoch]:
    def epoch_of(bucket: Bucket, threads: int) -> Epoch:
        read = make(bucket)

        def epoch() -> Read:
            with ThreadPoolExecutor(threads) as pool:
                lengths = list(pool.map(lambda one: read(*one), bucket.ranges()))
            return len(lengths), sum(lengths)

        return epoch

    return epoch_of


def _ours(workers: int, bucket: Bucket, depth: int) -> Epoch:
    import torch_s3io as s3io

    paths = [f"s3://{NAME}/{key}" for key in bucket.large]
    dataset = s3io.RecordDataset(paths, dtype="uint8", shape=(RANGE_BYTES,), batch_size=1)
    loader = s3io.DataLoader(dataset.with_options(depth=depth), num_workers=workers)
    return lambda: _lengths_of_batches(loader)


def _lengths_of_batches(loader: Iterable[Any]) -> Read:
    pieces = total = 0
    for batch in loader:
        pieces += len(batch)
        total += batch.numel()
    return pieces, total


def _boto3(bucket: Bucket) -> ReadRange:
    import boto3
    from botocore.config import Config

    client = boto3.client("s3", config=Config(max_pool_connections=64))

    def read(key: str, offset: int, length: int) -> int:
        wanted = f"bytes={offset}-{offset + length - 1}"
        return len(client.get_object(Bucket=NAME, Key=key, Range=wanted)["Body"].read())

    return read


def _s3torchconnector(bucket: Bucket) -> ReadRange:
    from s3torchconnectorclient._mountpoint_s3_client import MountpointS3Client

    client = MountpointS3Client("us-east-1", endpoint=bucket.endpoint, force_path_style=True)

    def read(key: str, offset: int, length: int) -> int:
        return sum(map(len, client.get_object(NAME, key, offset, offset + length)))

    return read


def _s3dlio(bucket: Bucket) -> ReadRange:
    import s3dlio

    return lambda key, offset, length: len(s3dlio.get_range(f"s3://{NAME}/{key}", offset, length))


def _opendal(bucket: Bucket) -> ReadRange:
    import opendal

    keys = {"access_key_id": _keys()["key"], "secret_access_key": _keys()["secret"]}
    operator = opendal.Operator(
        "s3", bucket=NAME, endpoint=bucket.endpoint, region="us-east-1", **keys
    )
    return lambda key, offset, length: len(operator.read(key, offset=offset, size=length))


def _pyarrow(bucket: Bucket) -> ReadRange:
    import pyarrow
    from pyarrow import fs

    pyarrow.set_io_thread_count(32)
    keys = {"access_key": _keys()["key"], "secret_key": _keys()["secret"]}
    system = fs.S3FileSystem(
        endpoint_override=bucket.endpoint, region="us-east-1",
        tls_ca_file_path=os.environ.get("AWS_CA_BUNDLE"), **keys,
    )  # fmt: skip
    files = {key: system.open_input_file(f"{NAME}/{key}") for key in bucket.large}
    return lambda key, offset, length: len(files[key].read_at(length, offset))


def _s3fs(bucket: Bucket) -> ReadRange:
    import s3fs

    system = s3fs.S3FileSystem(**_keys(), client_kwargs={"endpoint_url": bucket.endpoint})
    return lambda key, offset, length: len(
        system.cat_file(f"{NAME}/{key}", start=offset, end=offset + length)
    )


def _obstore(bucket: Bucket, depth: int) -> Epoch:
    import obstore
    from obstore.store import S3Store

    keys = {"access_key_id": _keys()["key"], "secret_access_key": _keys()["secret"]}
    options: Any = {"client_options": {"allow_http": True}, **keys}
    store = S3Store(NAME, endpoint=bucket.endpoint, region="us-east-1", **options)

    def epoch() -> Read:
        pieces = total = 0
        for key in bucket.large:
            starts = list(range(0, LARGE_BYTES, RANGE_BYTES))
            for first in range(0, len(starts), depth):
                part = starts[first : first + depth]
                found = obstore.get_ranges(
                    store, key, starts=part, lengths=[RANGE_BYTES] * len(part), coalesce=0
                )
                pieces += len(found)
                total += sum(len(memoryview(one)) for one in found)
        return pieces, total

    return epoch


def _tensorstore(bucket: Bucket, depth: int) -> Epoch:
    import tensorstore as ts

    spec = {
        "driver": "s3", "bucket": NAME, "endpoint": bucket.endpoint, "aws_region": "us-east-1",
        "aws_credentials": {"type": "environment"},
        "context": {"s3_request_concurrency": {"limit": depth}},
    }  # fmt: skip
    store = ts.KvStore.open(spec).result()

    def epoch() -> Read:
        lengths = []
        ranges = bucket.ranges()
        for first in range(0, len(ranges), depth):
            part = ranges[first : first + depth]
            asked = [store.read(key, byte_range=slice(at, at + size)) for key, at, size in part]
            lengths += [len(one.result().value) for one in asked]
        return len(lengths), sum(lengths)

    return epoch


# Records of 114,660 bytes -------------------------------------------------------------------------


def _our_records(workers: int, order: dict[str, Any], bucket: Bucket, depth: int) -> Epoch:
    import torch_s3io as s3io

    paths = [f"s3://{NAME}/{key}" for key in bucket.shards]
    dataset = s3io.RecordDataset(
        paths, dtype="uint8", shape=(RECORD_BYTES,), batch_size=BATCH, depth=depth, **order
    )
    loader = s3io.DataLoader(dataset, num_workers=workers)
    return lambda: _lengths_of_batches(loader)


def _our_samples(make: Callable[[Bucket], Any], field: str) -> Callable[[Bucket, int], Epoch]:
    def epoch_of(bucket: Bucket, depth: int) -> Epoch:
        dataset = make(bucket).with_options(depth=depth)

        def epoch() -> Read:
            samples = total = 0
            for batch in dataset:
                samples += len(batch[field])
                total += int(batch[field].lengths.sum())
            return samples, total

        return epoch

    return epoch_of


def _our_files(bucket: Bucket) -> Any:
    import torch_s3io as s3io

    pattern = f"s3://{NAME}/files/**"
    return s3io.SampleDataset.from_files(pattern, batch_size=BATCH, shuffle=True)


def _our_tars(bucket: Bucket) -> Any:
    import torch_s3io as s3io

    paths = [f"s3://{NAME}/{key}" for key in bucket.tars]
    return s3io.SampleDataset.from_tar(paths, fields=("bin",), batch_size=BATCH, shuffle=True)


def _same(batch: Any) -> Any:
    return batch


def _s3torchconnector_map(bucket: Bucket, workers: int) -> Epoch:
    from s3torchconnector import S3ClientConfig, S3MapDataset

    dataset = S3MapDataset.from_prefix(
        f"s3://{NAME}/files/", region="us-east-1", endpoint=bucket.endpoint,
        s3client_config=S3ClientConfig(force_path_style=True), transform=_bytes_of,
    )  # fmt: skip
    loader: Any = DataLoader(
        dataset, BATCH, shuffle=True, num_workers=workers, collate_fn=_same,
    )  # fmt: skip
    return lambda: _lengths(one for batch in loader for one in batch)


def _bytes_of(file: Any) -> bytes:
    return bytes(file.read())


def _streaming(bucket: Bucket, workers: int) -> Epoch:
    from streaming import StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    clean_stale_shared_memory()
    cache = tempfile.mkdtemp(prefix="streaming-")
    os.environ["S3_ENDPOINT_URL"] = bucket.endpoint
    dataset = StreamingDataset(
        remote=f"s3://{NAME}/mds", local=cache, shuffle=True,
        batch_size=BATCH, num_canonical_nodes=1,
    )  # fmt: skip
    loader: Any = DataLoader(dataset, BATCH, num_workers=workers, collate_fn=_same)

    def epoch() -> Read:
        read = _lengths(one["x"] for batch in loader for one in batch)
        shutil.rmtree(cache, ignore_errors=True)
        return read

    return epoch


def _litdata(bucket: Bucket, workers: int) -> Epoch:
    import litdata
    from litdata.streaming import downloader

    # It reads by obstore, which refuses plain HTTP unless it is told.
    options: Any = downloader._OBSTORE_CLIENT_OPTIONS
    options["allow_http"] = "true"
    # By default it reads all of a chunk anew for each record, or each 256.
    cache = tempfile.mkdtemp(prefix="litdata-")
    dataset = litdata.StreamingDataset(
        f"s3://{NAME}/litdata", cache_dir=cache, shuffle=True, batch_decode="all",
        storage_options={"endpoint_url": bucket.endpoint},
    )  # fmt: skip
    loader: Any = litdata.StreamingDataLoader(dataset, batch_size=BATCH, num_workers=workers)

    def epoch() -> Read:
        read = _lengths(one for batch in loader for one in batch)
        shutil.rmtree(cache, ignore_errors=True)
        return read

    return epoch


def _webdataset(bucket: Bucket, workers: int) -> Epoch:
    import webdataset as wds
    from botocore.session import Session
    from webdataset.gopen import gopen_schemes

    session = Session()

    def opened(url: str, *_: Any, **__: Any) -> Any:
        key = url.removeprefix(f"s3://{NAME}/")
        return session.create_client("s3").get_object(Bucket=NAME, Key=key)["Body"]

    gopen_schemes["s3"] = opened
    urls = [f"s3://{NAME}/{key}" for key in bucket.tars]
    dataset = wds.WebDataset(urls, shardshuffle=100).shuffle(1000).to_tuple("bin")
    loader = wds.WebLoader(
        dataset.batched(BATCH, collation_fn=_same), batch_size=None, num_workers=workers
    )
    return lambda: _lengths(one[0] for batch in loader for one in batch)


@dataclass(frozen=True)
class Contestant:
    make: Callable[[Bucket, int], Epoch]
    package: str
    in_flight: int = 16  # requests or threads; or workers


_WORKERS = 2
_SINGLE = 64  # requests for a record each, as wrk has
_SHUFFLED: dict[str, Any] = {"shuffle": True}
_IN_BLOCKS: dict[str, Any] = {"shuffle": "block", "block_records": 32}

RANGES = {
    "RecordDataset": Contestant(partial(_ours, 0), "torch_s3io"),
    "RecordDataset, 2 workers": Contestant(partial(_ours, 2), "torch_s3io"),
    "boto3": Contestant(_by_threads(_boto3), "boto3"),
    "s3torchconnectorclient": Contestant(_by_threads(_s3torchconnector), "s3torchconnectorclient"),
    "s3dlio": Contestant(_by_threads(_s3dlio), "s3dlio"),
    "obstore": Contestant(_obstore, "obstore"),
    "opendal": Contestant(_by_threads(_opendal), "opendal"),
    "pyarrow": Contestant(_by_threads(_pyarrow), "pyarrow"),
    "tensorstore": Contestant(_tensorstore, "tensorstore"),
    "s3fs": Contestant(_by_threads(_s3fs), "s3fs"),
}

RECORDS = {
    "RecordDataset, shuffled": Contestant(
        partial(_our_records, 0, _SHUFFLED), "torch_s3io", _SINGLE
    ),
    "RecordDataset, shuffled, 2 workers": Contestant(
        partial(_our_records, 2, _SHUFFLED), "torch_s3io", _SINGLE // 2
    ),
    "RecordDataset, blocks of 32": Contestant(partial(_our_records, 0, _IN_BLOCKS), "torch_s3io"),
    "RecordDataset, blocks of 32, 2 workers": Contestant(
        partial(_our_records, 2, _IN_BLOCKS), "torch_s3io"
    ),
    "from_files, shuffled": Contestant(_our_samples(_our_files, "data"), "torch_s3io", _SINGLE),
    "from_tar, shuffled": Contestant(_our_samples(_our_tars, "bin"), "torch_s3io", _SINGLE),
    "s3torchconnector, objects": Contestant(_s3torchconnector_map, "s3torchconnector", _WORKERS),
    "MosaicML Streaming": Contestant(_streaming, "streaming", _WORKERS),
    "LitData": Contestant(_litdata, "litdata", _WORKERS),
    "webdataset, buffer of 1000": Contestant(_webdataset, "webdataset", _WORKERS),
}
