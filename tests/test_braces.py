"""Brace patterns stand for what a shell makes of them."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torch_s3io.errors import ConfigError
from torch_s3io.format.braces import expand_braces

TEXTS = {
    "a.tar": ["a.tar"],
    "a{0..2}.tar": ["a0.tar", "a1.tar", "a2.tar"],
    "{8..11}": ["8", "9", "10", "11"],
    "{08..11}": ["08", "09", "10", "11"],
    "{000..2}": ["000", "001", "002"],
    "{2..0}": ["2", "1", "0"],
    "{0..9..3}": ["0", "3", "6", "9"],
    "{-1..1}": ["-1", "0", "1"],
    "{train,val}-{0..1}.tar": ["train-0.tar", "train-1.tar", "val-0.tar", "val-1.tar"],
    "x{,y}": ["x", "xy"],
    "{a}": ["{a}"],
    "{}": ["{}"],
    "{a..c}": ["{a..c}"],
    "{1..}": ["{1..}"],
    "}{": ["}{"],
}


@pytest.mark.parametrize("text", TEXTS)
def test_braces_stand_for_numbers_or_words(text):
    assert expand_braces(text) == TEXTS[text]


number = st.integers(0, 30).flatmap(
    lambda one: st.integers(0, 4).map(lambda width: f"{one:0{width}}")
)
part = st.one_of(
    st.text("ab.-", max_size=2),
    st.tuples(number, number).map(lambda ends: "{" + "..".join(ends) + "}"),
    st.lists(st.text("ab1", max_size=2), min_size=2, max_size=3).map(
        lambda words: "{" + ",".join(words) + "}"
    ),
)


@given(st.lists(st.lists(part, min_size=1, max_size=2).map("".join), min_size=1, max_size=20))
def test_they_are_expanded_as_bash_does(texts):
    if shutil.which("bash") is None:
        pytest.skip("NEEDS BASH")
    lines = "".join(f"printf '<%s>' X{text}X; echo\n" for text in texts)
    output = subprocess.run(["bash", "-c", lines], capture_output=True, text=True, check=True)
    found = ["".join(f"<X{one}X>" for one in expand_braces(text)) for text in texts]
    assert found == output.stdout.splitlines()


def test_too_many_and_nested_ones_are_refused():
    with pytest.raises(ConfigError, match="more than 1,000,000 paths"):
        expand_braces("{0..999999}{0..1}")
    with pytest.raises(ConfigError, match="more than 1,000,000 paths"):
        expand_braces("{0..999999999999999999}")
    with pytest.raises(ConfigError, match="braces within braces"):
        expand_braces("{a,{b,c}}")
