"""Where credentials for object storage come from, how they get to workers, and what hides them."""

from __future__ import annotations

import gc
import importlib.util
import json
import logging
import math
import multiprocessing
import os
import pickle
import re
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from buckets import needs_s3
from metadata_server import MetadataServer
from object_servers.buckets import error
from object_servers.fault_server import ACCESS_KEY, SECRET_KEY, FaultServer
from support import DEADLINE_S

from torch_s3io import _C, cli, errors

pytestmark = needs_s3
if _C.built_with_s3:
    from test_s3_objects import DATA, OPTIONS

    from torch_s3io import S3Config
    from torch_s3io.store.s3_connections import connections_here
    from torch_s3io.store.s3_credentials import S3Credentials, find_keys, place_of
    from torch_s3io.store.s3_renewal import Keys

PATH = "s3://bucket/k"


def objects_of(endpoint: str, credentials: S3Credentials) -> _C.S3Objects:
    return _C.S3Objects(**OPTIONS, endpoint=endpoint, credentials=credentials.source())


def size_of(endpoint: str, credentials: S3Credentials) -> int:
    return int(objects_of(endpoint, credentials).stat(PATH)[0][2])


@pytest.fixture
def server() -> Iterator[FaultServer]:
    server = FaultServer()
    server.buckets.put("bucket", "k", DATA)
    yield server
    server.close()


@pytest.fixture
def metadata(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[MetadataServer]:
    pytest.importorskip("botocore")
    metadata = MetadataServer(server.keys)
    metadata.use(monkeypatch)
    yield metadata
    metadata.close()


def refuse_tokens(server: FaultServer, refused: set[str], code: str = "ExpiredToken") -> None:
    def fault(reply: Any, request: Any) -> Any:
        is_refused = request.headers.get("x-amz-security-token") in refused
        return error(400, code) if is_refused else reply

    server.fault = fault


def without_botocore(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "botocore" else find(name)
    )


def test_the_first_place_that_has_keys_gives_them(monkeypatch):
    without_botocore(monkeypatch)
    variables = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    keys, again = find_keys(S3Config(access_key="x", secret_key="y"), variables)
    assert (tuple(keys)[:3], again) == (("x", "y", ""), None)
    keys, again = find_keys(S3Config(), variables)
    assert (tuple(keys)[:3], again) == (("a", "b", ""), None)
    keys, again = find_keys(S3Config(), {**variables, "AWS_SESSION_TOKEN": "c"})
    assert tuple(keys)[:3] == ("a", "b", "c")
    assert again is not None  # the variables may be set anew
    with pytest.raises(errors.ConfigError, match="belong together"):
        find_keys(S3Config(), {"AWS_ACCESS_KEY_ID": "a"})


@pytest.mark.parametrize(
    ("given", "variables", "has_botocore", "words"),
    [
        ({}, {}, False, ["AWS_ACCESS_KEY_ID", "not installed", "torch_s3io[s3]", "anonymous=True"]),
        ({}, {"AWS_PROFILE": "team"}, False, ["the profile 'team' cannot be read"]),
        ({"profile": "mine"}, {"AWS_ACCESS_KEY_ID": "a"}, False, ["the profile 'mine'"]),
        ({}, {}, True, ["AWS_ACCESS_KEY_ID", "'default' of ~/.aws", "aws configure"]),
        ({"profile": "mine"}, {}, True, ["profile", "mine", "could not be found"]),
    ],
)
def test_an_error_says_where_keys_were_looked_for(
    given, variables, has_botocore, words, monkeypatch
):
    if has_botocore:
        pytest.importorskip("botocore")
        for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
            monkeypatch.setenv(name, "/nowhere")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.delenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", raising=False)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
    else:
        without_botocore(monkeypatch)
    with pytest.raises(errors.ConfigError) as caught:
        find_keys(S3Config(**given), variables)
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_request_is_unsigned_only_where_that_is_asked_for(server, monkeypatch):
    anonymous = S3Credentials(S3Config(anonymous=True))
    with pytest.raises(errors.AccessError):
        size_of(server.endpoint, anonymous)
    assert "authorization" not in server.requests[0].headers
    without_botocore(monkeypatch)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    count = len(server.requests)
    with pytest.raises(errors.ConfigError, match="no credentials"):
        size_of(server.endpoint, S3Credentials(S3Config()))
    assert len(server.requests) == count


def test_a_bucket_is_where_the_config_the_variables_or_the_profile_say(tmp_path, monkeypatch):
    variables = {
        "AWS_ENDPOINT_URL": "http://all", "AWS_ENDPOINT_URL_S3": "http://s3",
        "AWS_DEFAULT_REGION": "eu-one", "AWS_CA_BUNDLE": "/ca.pem",
    }  # fmt: skip
    assert place_of(S3Config(), variables) == ("http://s3", "eu-one", "/ca.pem")
    assert place_of(S3Config(), {**variables, "AWS_REGION": "eu-two"}).region == "eu-two"
    own = S3Config(endpoint="http://own", region="own", ca_file="/own")
    assert place_of(own, variables) == ("http://own", "own", "/own")
    pytest.importorskip("botocore")
    profile = tmp_path / "config"
    profile.write_text("[profile team]\nregion = eu-three\nendpoint_url = http://team\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(profile))
    assert place_of(S3Config(profile="team"), {}) == ("http://team", "eu-three", "")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    assert place_of(S3Config(), {}) == ("", "us-east-1", "")


def test_temporary_keys_are_renewed_where_the_server_says_that_they_have_expired(server, metadata):
    credentials = S3Credentials(S3Config())
    assert size_of(server.endpoint, credentials) == len(DATA)
    assert len(metadata.sets) == 1
    refuse_tokens(server, {metadata.sets[0]["Token"]})
    sent = len(server.requests)
    assert size_of(server.endpoint, credentials) == len(DATA)
    assert (len(metadata.sets), len(server.requests) - sent) == (2, 2)
    # One that is refused again is the error.
    refuse_tokens(server, {one["Token"] for one in metadata.sets})
    metadata.stays = True
    with pytest.raises(errors.Error, match="ExpiredToken"):
        objects_of(server.endpoint, credentials).list_objects("s3://bucket/")
    threads = [one for one in threading.enumerate() if one.name == "s3io-credentials"]
    assert len(threads) == 1
    del credentials
    gc.collect()
    threads[0].join(60)
    assert not threads[0].is_alive()


def use_process(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """What gives keys, and nothing else."""
    program, config = folder / "keys.sh", folder / "config"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    config.write_text(f"[default]\ncredential_process = {program}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)


def test_a_look_up_that_hangs_ends_and_says_what_hangs(monkeypatch, tmp_path, capsys):
    pytest.importorskip("botocore")
    os.mkfifo(tmp_path / "never")
    use_process(monkeypatch, tmp_path, f"read line < {tmp_path}/never")
    monkeypatch.setattr("torch_s3io.store.s3_chain._MOST_S", 0.2)
    text = "no credentials for s3:// within 0.2 s: botocore still waits for the profile 'default'"
    with pytest.raises(errors.ConfigError, match=re.escape(text)):
        S3Credentials(S3Config()).source()
    assert cli.main(["doctor", PATH, "--quick"]) == 1
    assert text in capsys.readouterr().err
    hanging = [one for one in threading.enumerate() if one.name == "s3io-look-up"]
    assert len(hanging) == 2
    os.close(os.open(tmp_path / "never", os.O_WRONLY))
    for thread in hanging:
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


def test_a_process_that_has_no_newer_keys_is_not_asked_for_each_request(
    server, monkeypatch, tmp_path
):
    pytest.importorskip("botocore")
    server.keys["old"] = server.keys["new"] = "s" * 40
    keys = {"Version": 1, "AccessKeyId": "old", "SecretAccessKey": "s" * 40, "SessionToken": "t"}
    answer, asked = tmp_path / "answer", tmp_path / "asked"
    answer.write_text(json.dumps(keys))
    use_process(monkeypatch, tmp_path, f"echo >> {asked}; cat {answer}")
    monkeypatch.setattr("torch_s3io.store.s3_renewal._IN_VAIN_S", 1e6)
    refuse_tokens(server, {"t"})
    credentials = S3Credentials(S3Config())
    objects = objects_of(server.endpoint, credentials)
    for _ in range(5):
        with pytest.raises(errors.AccessError):
            objects.list_objects("s3://bucket/")
    assert asked.read_text() == "\n" * 2
    answer.write_text(json.dumps({**keys, "AccessKeyId": "new", "SessionToken": "u"}))
    later = SimpleNamespace(monotonic=lambda: math.inf)
    monkeypatch.setattr("torch_s3io.store.s3_renewal.time", later)
    assert len(objects.list_objects("s3://bucket/")) == 1
    assert asked.read_text() == "\n" * 3


def test_keys_that_the_server_does_not_know_are_looked_up_again(server, monkeypatch, tmp_path):
    pytest.importorskip("botocore")
    for name in ("old", "new"):
        keys = {"Version": 1, "AccessKeyId": name, "SecretAccessKey": "s" * 40}
        (tmp_path / name).write_text(json.dumps(keys))
    server.keys["new"] = "s" * 40
    asked = tmp_path / "asked"
    use_process(monkeypatch, tmp_path, f"cd {tmp_path}; cat $([ -e asked ] && echo new || echo old)"
                "; echo >> asked")  # fmt: skip
    assert size_of(server.endpoint, S3Credentials(S3Config())) == len(DATA)
    assert asked.read_text() == "\n" * 2


def test_a_signal_ends_the_wait_for_newer_keys(server):
    board = _C.CredentialBoard()  # nobody answers its bell
    expired = Keys(ACCESS_KEY, SECRET_KEY, expires_s=1.0)
    expired.say(board, is_renewed=True)
    objects = _C.S3Objects(**OPTIONS, endpoint=server.endpoint, credentials=board.source())
    begin = time.monotonic()
    interrupting = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    interrupting.start()
    with pytest.raises(KeyboardInterrupt):
        objects.stat(PATH)
    assert time.monotonic() - begin < 15  # 20 where nobody interrupts
    interrupting.join()
    assert not server.requests


def test_a_clock_and_a_region_that_are_wrong_are_set_once(server, monkeypatch):
    def elsewhere_and_later(reply: Any, request: Any) -> Any:
        if not request.headers["x-amz-date"].startswith("2038"):
            skewed = error(403, "RequestTimeTooSkewed")
            return skewed.header("Date", "Fri, 01 Jan 2038 00:00:10 GMT")
        if "/eu-west-9/" not in request.headers["authorization"]:
            moved = error(301, "PermanentRedirect").header("Location", "http://127.0.0.1:1/")
            return moved.header("x-amz-bucket-region", "eu-west-9")
        return reply

    server.fault = elsewhere_and_later
    keys = _C.fixed_credentials(access_key=ACCESS_KEY, secret_key=SECRET_KEY, session_token="")
    objects = _C.S3Objects(**OPTIONS, endpoint=server.endpoint, credentials=keys)
    for requests in (3, 4):
        assert objects.stat(PATH)[0][2] == len(DATA)
        assert len(server.requests) == requests


def test_a_forked_worker_uses_what_its_parent_renews(server, metadata):
    credentials = S3Credentials(S3Config())
    credentials.source()
    refuse_tokens(server, {metadata.sets[0]["Token"]})
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = int(size_of(server.endpoint, credentials) != len(DATA))
        except BaseException:
            traceback.print_exc()
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert len(metadata.sets) == 2  # asked by the parent
    assert credentials.source() is not None


def _in_spawned(endpoint: str, credentials: S3Credentials, sizes: Any) -> None:
    sizes.send(size_of(endpoint, credentials))


@pytest.mark.usefixtures("new_interpreters")
def test_a_spawned_worker_gets_descriptors_and_no_secret(server, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    credentials = S3Credentials(S3Config(access_key=ACCESS_KEY, secret_key=SECRET_KEY))
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    with ours, theirs:
        process = context.Process(target=_in_spawned, args=(server.endpoint, credentials, theirs))
        process.start()
        assert ours.poll(60)
        assert ours.recv() == len(DATA)
        process.join(60)
        assert process.exitcode == 0
    process.close()


def test_no_secret_is_in_any_text(server, monkeypatch, caplog):
    secret, token = "Canary" + "s3cr3t/+" * 4 + "==", "CanaryToken" * 90
    given = S3Config(access_key="AKIACANARYACCESSKEY1", secret_key=secret, session_token=token)
    credentials = S3Credentials(given)
    caplog.set_level(logging.DEBUG)
    texts = [repr(credentials), str(credentials), repr(find_keys(given, {}))]

    def echo(reply: Any, request: Any) -> Any:
        return error(403, "Denied", f"{secret} {token} {token[100:500]} {secret[9:30]}")

    server.fault = echo
    with pytest.raises(errors.AccessError) as caught:  # a HEAD would have no text
        objects_of(server.endpoint, credentials).list_objects("s3://bucket/")
    assert "Denied" in str(caught.value)
    texts += [str(caught.value), *traceback.format_exception(caught.value), caplog.text]
    texts.append(pickle.dumps(credentials).decode("latin-1"))
    for text in texts:
        for hidden in (secret[:8], secret[9:30], token[:11], "AKIACANARYACCESSKEY1"):
            assert hidden not in text
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    without_botocore(monkeypatch)
    elsewhere = pickle.loads(pickle.dumps(credentials))
    with pytest.raises(errors.ConfigError, match="stay in the process"):
        elsewhere.source()


def test_the_ranks_of_a_machine_and_their_workers_share_its_connections(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert connections_here(64) == 64
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert connections_here(64) == 8
    worker = SimpleNamespace(num_workers=2)
    monkeypatch.setattr("torch_s3io.store.s3_connections.get_worker_info", lambda: worker)
    assert connections_here(64) == 4
    assert connections_here(3) == 1
