#!/usr/bin/env bash
# Builds wheels as pip does, with io_uring and object storage and without both, warnings being
# errors; installs each into an empty folder, and reads a file with it from there.
set -euo pipefail
cd "$(dirname "$0")/.."

python=$PWD/.venv/bin/python
pip=("$python" -m pip --disable-pip-version-check -q)
export TORCH_S3IO_WERROR=1

for without in 0 1; do
  folder=$PWD/build/wheel-without-$without
  rm -rf "$folder"
  TORCH_S3IO_NO_URING=$without TORCH_S3IO_NO_S3=$without "${pip[@]}" wheel --no-build-isolation --no-deps -w "$folder" .
  "${pip[@]}" install --no-deps --target "$folder/installed" "$folder"/*.whl
  cd "$folder"
  head -c 65536 /dev/urandom >records.bin
  PYTHONPATH=installed "$python" - "$without" <<'END'
import contextlib
import io
import json
import pathlib
import runpy
import sys
import warnings

import torch_s3io as s3io

assert pathlib.Path(s3io.__file__).parent == pathlib.Path("installed/torch_s3io").resolve()
dataset = s3io.RecordDataset("records.bin", dtype="u1", shape=512, batch_size=16)
warnings.simplefilter("ignore")  # without io_uring there is one
data = b"".join(batch.numpy().tobytes() for batch in s3io.DataLoader(dataset, num_workers=1))
assert data == pathlib.Path("records.bin").read_bytes()
reason = s3io._C.uring_unavailable_reason()
no_uring = no_s3 = sys.argv[1] == "1"
assert no_uring == ("without" in reason), reason
assert no_s3 != s3io._C.built_with_s3
try:  # nobody listens on this port
    config = s3io.S3Config(endpoint="http://127.0.0.1:1", anonymous=True, max_attempts=1)
    s3io.RecordDataset("s3://bucket/x.bin", dtype="u1", store=config)
except s3io.ConfigError as error:
    assert no_s3 and "TORCH_S3IO_NO_S3" in str(error), error
except s3io.ReadError as error:
    assert not no_s3 and "127.0.0.1:1 was not reached" in str(error), error

sys.argv[1:] = ["doctor", "--json"]
try:
    with contextlib.redirect_stdout(io.StringIO()) as output:
        runpy.run_module("torch_s3io", run_name="__main__", alter_sys=True)
except SystemExit as end:
    # Without io_uring there is something that costs: 3.
    assert end.code == 3 or (not end.code and not no_uring), end.code
json.loads(output.getvalue())
END
  cd - >/dev/null
done
