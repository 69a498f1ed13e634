"""Names of files as digests see them: as json.dumps writes what os.fsdecode makes of them."""

from __future__ import annotations

import json
import os

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from torch_s3io import _C

NAMES = st.lists(
    st.one_of(
        st.binary(max_size=8),
        st.text('a"\\/\n\t\r\b\f\x00\x1f\x7fé\u2028\ud7ff\ue000\U0001f600', max_size=6).map(
            str.encode
        ),
        st.sampled_from(
            [b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\xf0\x9f"]
        ),
    ),
    max_size=6,
)


@given(NAMES, st.integers(0, 3))
def test_lines_are_those_of_json_and_equal_names_are_counted(names, cut):
    left_out = np.array([min(cut, len(name)) for name in names], np.int64)
    rest = [name[cut:] for name in names]
    columns = {
        "paths": np.frombuffer(b"".join(names), np.uint8).data,
        "path_ends": np.cumsum([len(name) for name in names], dtype=np.uint64).data,
        "left_out": left_out,
    }
    expected = "".join(json.dumps(os.fsdecode(name)) + "\n" for name in rest)
    assert _C.json_lines(**columns, first=0, last=len(names)) == expected.encode()
    middle = len(names) // 2
    parts = [(0, middle), (middle, len(names))]
    lines = b"".join(_C.json_lines(**columns, first=one, last=two) for one, two in parts)
    assert lines == expected.encode()
    assert _C.count_repeated(**columns) == len(rest) - len(set(rest))
